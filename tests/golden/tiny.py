"""Makes `tiny/expected.safetensors`: what transformers computes in f32 with the bundled model.

    python tests/golden/tiny.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "tiny"
TEXT = ("Once upon a time, there was a quiet owl named Zoë. She had a green kite, a gift from her uncle, "
        "and she took it everywhere. One day,")
# Chosen so that no step is close: another order of additions must not change a token.
GREEDY = ["<|begin|>Once upon a time, there was a happy turtle named Ivy. One spring morning,",
          "<|begin|><|user|>Tell me a story about a turtle named Finn.<|end|><|assistant|>"]
STEPS, LEAST_LEAD = 64, 5e-3


@torch.no_grad()
def greedy(model, prompt):
    """The continuation, and the smallest lead of a chosen token's logit over the next best."""
    ids, lead = list(prompt), float("inf")
    for _ in range(STEPS):
        best = model(torch.tensor([ids])).logits[0, -1].topk(2)
        lead = min(lead, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[len(prompt):], lead


def main():
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    tokens = tokenizer.encode(TEXT).ids
    with torch.no_grad():
        tensors = {"tokens": torch.tensor(tokens, dtype=torch.int32), "logits": model(torch.tensor([tokens])).logits[0]}
    for i, text in enumerate(GREEDY):
        prompt = tokenizer.encode(text, add_special_tokens=False).ids
        chosen, lead = greedy(model, prompt)
        print(f"{len(prompt)} tokens, least lead {lead:.3f}: {tokenizer.decode(chosen, skip_special_tokens=False)}")
        assert lead >= LEAST_LEAD and 1 not in chosen
        tensors[f"prompt_{i}"] = torch.tensor(prompt, dtype=torch.int32)
        tensors[f"greedy_{i}"] = torch.tensor(chosen, dtype=torch.int32)
    folder = HERE / "tiny"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "expected.safetensors")
    (folder / "expected.safetensors").chmod(0o644)
    print(f"{len(tokens)} tokens of logits")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
