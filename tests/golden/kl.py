"""Makes `kl/`: a fixed text, transformers' f32 distributions over it, and how far its own bf16 strays from them.

    python tests/golden/kl.py [--new-text]

The text is committed; only `--new-text` draws it again. Every window of 512 tokens begins with a document and
is computed by itself from position 0. Of each distribution p the TOP largest log-probabilities are kept and the mass of all
other tokens, `rest`. The measure is

    KL = sum over the TOP of p (ln p - ln q)  +  rest (ln rest - ln rest_q)    in nats, rest_q = q's mass outside the TOP,

averaged over all positions: never more than the full divergence, and within 0.1 % of it here.
"""

import itertools
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
TOKENS, WINDOW, TOP = 4096, 512, 32


def draw_text(tokenizer):
    """Windows that begin with a document and end wherever their length ends."""
    sys.path.insert(0, str(MODEL))
    from stories import document

    seeds, text = itertools.count(FIRST_SEED), ""
    for _ in range(TOKENS // WINDOW):
        ids = []
        while len(ids) < WINDOW:
            ids += tokenizer.encode(document(next(seeds))[0], add_special_tokens=False).ids
        text += tokenizer.decode(ids[:WINDOW], skip_special_tokens=False)
    (FOLDER / "text.txt").write_text(text, encoding="utf-8")


@torch.no_grad()
def log_probs(tokens, dtype, attention="sdpa"):
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype, attn_implementation=attention).eval()
    windows = [model(window[None]).logits[0] for window in tokens.long().split(WINDOW)]
    return torch.cat(windows).double().log_softmax(-1)


def split(log_p, top):
    """Log-probabilities of the top tokens and the mass of the others."""
    return log_p.gather(-1, top), log_p.exp().scatter(-1, top, 0.0).sum(-1)


def mean_kl(reference, other, top):
    (p, rest), (q, rest_q) = split(reference, top), split(other, top)
    return ((p.exp() * (p - q)).sum(-1) + rest * (rest / rest_q).log()).mean().item()


def nats_per_token(log_p, tokens):
    nats = -log_p[:-1].gather(-1, tokens[1:, None].long())[:, 0]
    return nats[torch.arange(1, TOKENS) % WINDOW != 0].mean().item()


def main():
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    FOLDER.mkdir(exist_ok=True)
    if "--new-text" in sys.argv[1:]:
        draw_text(tokenizer)
    text = (FOLDER / "text.txt").read_text(encoding="utf-8")
    tokens = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int32)
    assert len(tokens) == TOKENS and (tokens[::WINDOW] == 0).all()
    reference = log_probs(tokens, torch.float32)
    top = reference.topk(TOP).indices
    kept, rest = split(reference, top)
    save_file({"tokens": tokens, "top_tokens": top.int(), "top_log_probs": kept.float(), "rest": rest.float()},
              FOLDER / "tokens.safetensors")
    (FOLDER / "tokens.safetensors").chmod(0o644)
    other = log_probs(tokens, torch.bfloat16)
    expected = {
        "windows": TOKENS // WINDOW,
        "window_tokens": WINDOW,
        "positions": TOKENS,
        "top": TOP,
        "hf_bf16_mean_kl": mean_kl(reference, other, top),
        "hf_bf16_mean_kl_eager": mean_kl(reference, log_probs(tokens, torch.bfloat16, "eager"), top),
        "hf_bf16_mean_kl_whole_vocabulary": (reference.exp() * (reference - other)).sum(-1).mean().item(),
        "mean_nats_per_token": nats_per_token(reference, tokens),
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
    print(json.dumps(expected, indent=2))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
