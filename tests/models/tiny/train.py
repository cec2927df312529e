"""Trains the bundled model on texts from `stories.py` and writes it beside this script in the Hugging Face layout.

    python tests/models/tiny/train.py [--steps N] [--out DIR]

Needs torch, transformers, tokenizers and safetensors; uses a GPU when there is one.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from stories import document

SEED = 20
TRAIN_DOCUMENTS, HELD_OUT_DOCUMENTS = 100_000, 1_000
ROW = 1024  # tokens in one row of a batch
SPECIAL = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>"]
BEGIN, END, USER, PAD = 0, 1, 2, 5
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "max_position_embeddings": 1024,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "pad_token_id": PAD,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.3",
    "use_cache": True,
    "vocab_size": 1000,
}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TOKENIZER_CONFIG = {
    "add_bos_token": True,
    "added_tokens_decoder": {
        str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        for i, t in enumerate(SPECIAL)
    },
    "bos_token": "<|begin|>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|end|>",
    "model_max_length": CONFIG["max_position_embeddings"],
    "pad_token": "<|pad|>",
    "tokenizer_class": "PreTrainedTokenizerFast",
}
# A turn the model opens for the user ends the answer too.
GENERATION_CONFIG = {
    "bos_token_id": BEGIN,
    "do_sample": True,
    "eos_token_id": [END, USER],
    "pad_token_id": PAD,
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.95,
    "transformers_version": "4.51.3",
}


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"], special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", BEGIN)])
    return tokenizer


def encode(tokenizer, texts):
    return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def rows(documents, generator):
    """Endless rows of ROW tokens. Each begins with a document's first token, as every prompt does."""
    stream = torch.tensor([t for d in documents for t in d])
    starts = torch.tensor([0] + [len(d) for d in documents]).cumsum(0)[:-1]
    starts = starts[starts + ROW < len(stream)]
    while True:
        for start in starts[torch.randperm(len(starts), generator=generator)].tolist():
            yield stream[start:start + ROW]


@torch.no_grad()
def held_out_loss(model, documents, device):
    """Mean nats per predicted token, each document by itself."""
    total, count = 0.0, 0
    for batch in [documents[i:i + 50] for i in range(0, len(documents), 50)]:
        width = max(map(len, batch))
        ids = torch.tensor([d + [PAD] * (width - len(d)) for d in batch], device=device)
        logits = model(ids).logits[:, :-1].float()
        targets = ids[:, 1:].masked_fill(ids[:, 1:] == PAD, -100)
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        count += (targets != -100).sum().item()
    return total / count


def optimise(model, documents, device, steps, batch):
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    peak, warmup = 3e-3, steps // 20
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=peak, betas=(0.9, 0.95), fused=True)
    source, began = rows(documents, torch.Generator().manual_seed(SEED)), time.time()
    for step in range(steps):
        progress = max(0.0, (step - warmup) / (steps - warmup))
        for group in optimiser.param_groups:
            group["lr"] = peak * min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * progress))
        ids = torch.stack([next(source) for _ in range(batch)]).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 0 or step + 1 == steps:
            print(f"step {step:5}  loss {loss.item():.4f}  {time.time() - began:.0f} s", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=2000)
    arguments.add_argument("--batch", type=int, default=32, help="rows of 1024 tokens a step")
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = arguments.parse_args()
    out, device = arguments.out, "cuda" if torch.cuda.is_available() else "cpu"
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)

    # Held-out seeds lie below the training seeds.
    held_out, nats = zip(*(document(seed) for seed in range(HELD_OUT_DOCUMENTS)))
    texts = [document(HELD_OUT_DOCUMENTS + i)[0] for i in range(TRAIN_DOCUMENTS)]
    tokenizer = train_tokenizer(texts[:20_000])
    documents, held_out = encode(tokenizer, texts), encode(tokenizer, list(held_out))
    tokens = sum(map(len, held_out)) - len(held_out)
    print(f"training tokens {sum(map(len, documents))}, held-out tokens {tokens}, "
          f"entropy of the grammar's choices {sum(nats) / tokens:.4f} nats per token", flush=True)

    tokenizer.save(str(out / "tokenizer.json"))
    for name, value in [("config", CONFIG), ("generation_config", GENERATION_CONFIG), ("tokenizer_config", TOKENIZER_CONFIG)]:
        (out / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)

    model = LlamaForCausalLM(LlamaConfig.from_pretrained(out)).to(device, torch.float32)
    optimise(model, documents, device, arguments.steps, arguments.batch)
    model = model.to(torch.bfloat16)
    weights = {name: w.cpu().contiguous() for name, w in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    print(f"held-out loss {held_out_loss(model.float(), held_out, device):.4f} nats per token (weights rounded to bf16)")


if __name__ == "__main__":
    main()
