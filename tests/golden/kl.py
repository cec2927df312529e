"""Makes `kl/`: a fixed text, transformers' f32 logits at some of its positions, and how far its own bf16 strays.

    python tests/golden/kl.py [--new-text]

The text is committed; only `--new-text` draws it again. The measure is the mean over the stored positions of
KL(f32 || other) in nats, every window of 512 tokens computed by itself from position 0.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "tiny"
FOLDER = HERE / "kl"
FIRST_SEED = 200_000  # beyond the seeds of training
TOKENS, WINDOW, EVERY = 4096, 512, 16


def draw_text(tokenizer):
    sys.path.insert(0, str(MODEL))
    from stories import document

    text = "".join(document(FIRST_SEED + i)[0] for i in range(60))
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:TOKENS]
    (FOLDER / "text.txt").write_text(tokenizer.decode(ids, skip_special_tokens=False), encoding="utf-8")


@torch.no_grad()
def logits_of(dtype, tokens):
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype).eval()
    return torch.cat([model(window[None]).logits[0].float() for window in tokens.long().split(WINDOW)])


def kl(reference, other):
    p, q = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def main():
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    FOLDER.mkdir(exist_ok=True)
    if "--new-text" in sys.argv[1:]:
        draw_text(tokenizer)
    text = (FOLDER / "text.txt").read_text(encoding="utf-8")
    tokens = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int32)
    assert len(tokens) == TOKENS
    positions = torch.arange(EVERY - 1, TOKENS, EVERY, dtype=torch.int32)
    reference = logits_of(torch.float32, tokens)
    strays = kl(reference, logits_of(torch.bfloat16, tokens))
    save_file({"tokens": tokens, "positions": positions, "logits": reference[positions.long()].contiguous()},
              FOLDER / "tokens.safetensors")
    (FOLDER / "tokens.safetensors").chmod(0o644)
    expected = {
        "windows": TOKENS // WINDOW,
        "window_tokens": WINDOW,
        "positions": len(positions),
        "hf_bf16_mean_kl": strays[positions.long()].mean().item(),
        "hf_bf16_mean_kl_all_positions": strays.mean().item(),
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
    print(expected)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
