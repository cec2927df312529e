"""Makes the golden fixtures: seeded random checkpoints and the f32 logits transformers gives for them.

    python tests/golden/make.py [NAME...]

Each fixture is checked before it is kept: its logits are spread, its attention is peaked, and every part listed for it
moves the logits when taken away.
"""

import json
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from fixtures import FIXTURES

HERE = Path(__file__).parent
LEAST_SPREAD = 1.0  # standard deviation of the logits
LEAST_PEAK = 0.2  # mean over queries of the largest attention weight; uniform attention over 80 tokens gives 0.06
LEAST_MOVE = 1e-2  # largest change of a logit when a part is taken away
LEAST_GELU_MOVE = 5e-4  # tanh in gelu approximates erf well


def draw(name, shape, model, generator):
    """Weights that make every part matter: queries and keys large, gains away from 1, biases away from 0."""
    tied = model.config.tie_word_embeddings
    normal = torch.randn(shape, generator=generator)
    if name.endswith(".bias"):
        return 0.5 * normal
    if len(shape) == 1:
        # Where heads are normed, their gains are what makes queries and keys large.
        gain = (0.5 + torch.rand(shape, generator=generator)) * (1.7 if "q_norm" in name or "k_norm" in name else 1.0)
        return gain - 1.0 if model.config.model_type.startswith("gemma") else gain
    if "wpe" in name or "wte" in name or "embed_tokens" in name:
        return normal * (0.15 if tied else 1.0)  # a tied head of hidden size 64 then gives a spread of 1.2
    fan_in = shape[0] if "c_" in name else shape[1]
    normal *= fan_in**-0.5
    if "q_proj" in name or "k_proj" in name:
        normal *= 1.5
    if "c_attn" in name:
        normal[:, : 2 * shape[0]] *= 1.5
    if "qkv_proj" in name:
        normal[: -model.config.num_key_value_heads * (model.config.hidden_size // model.config.num_attention_heads)] *= 1.5
    return normal


def draw_weights(fixture, folder):
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    generator = torch.Generator().manual_seed(zlib.crc32(fixture.name.encode()))
    tied = model.config.tie_word_embeddings
    shapes = {n: tuple(w.shape) for n, w in model.state_dict().items() if not (tied and n == "lm_head.weight")}
    return {name: draw(name, shape, model, generator).to(getattr(torch, fixture.dtype)) for name, shape in shapes.items()}


def save_weights(fixture, weights, folder):
    if fixture.hub_names:
        weights = {name.removeprefix("transformer."): w for name, w in weights.items()}
        mask = torch.ones(fixture.config["n_positions"], fixture.config["n_positions"]).tril()[None, None]
        weights |= {f"h.{i}.attn.bias": mask.clone() for i in range(fixture.config["n_layer"])}
    if fixture.shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    files = [f"model-{i + 1:05}-of-{fixture.shards:05}.safetensors" for i in range(fixture.shards)]
    where = {name: files[i % fixture.shards] for i, name in enumerate(sorted(weights))}
    for file in files:
        save_file({n: w for n, w in weights.items() if where[n] == file}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(w.nbytes for w in weights.values())}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def ending(names, end):
    hit = [name for name in names if name.endswith(end)]
    assert hit, f"nothing ends in {end}"
    return hit


def write_checkpoint(fixture, folder, change=None):
    """Writes the fixture, or the fixture without one part; the weights are the same otherwise."""
    folder.mkdir(parents=True)
    config = fixture.config | (change.config if change else {})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = draw_weights(fixture, folder)
    for end, value in (change.fill if change else {}).items():
        for name in ending(weights, end):
            weights[name].fill_(value)
    for end, value in (change.shift if change else {}).items():
        for name in ending(weights, end):
            weights[name].add_(value)
    save_weights(fixture, weights, folder)


@torch.no_grad()
def run(folder, tokens, dtype=torch.float32, change=None):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    for end in change.skip if change else []:
        for name in ending(dict(model.named_modules()), end):
            model.set_submodule(name, torch.nn.Identity())
    buffers = dict(model.named_buffers())
    for end, value in (change.buffers if change else {}).items():
        for name in ending(buffers, end):
            buffers[name].fill_(value)
    result = model(tokens[None].long(), output_attentions=True, use_cache=False)
    peak = torch.stack(result.attentions).amax(-1)[..., 16:].mean().item()
    return result.logits[0], peak


def move_without(fixture, change, tokens, logits):
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(fixture, Path(folder) / "model", change)
        return (run(Path(folder) / "model", tokens, change=change)[0] - logits).abs().max().item()


def make(fixture):
    folder = HERE / fixture.name
    shutil.rmtree(folder, ignore_errors=True)
    write_checkpoint(fixture, folder)
    generator = torch.Generator().manual_seed(zlib.crc32(fixture.name.encode()) + 1)
    tokens = torch.randint(fixture.config["vocab_size"], (fixture.tokens,), generator=generator, dtype=torch.int32)
    logits, peak = run(folder, tokens)
    spread = logits.std().item()
    rounding = (run(folder, tokens, torch.float64)[0] - logits).abs().max().item()
    print(f"{fixture.name}: spread {spread:.2f}, peak {peak:.2f}, distance to f64 {rounding:.1e}")
    assert spread >= LEAST_SPREAD and peak >= LEAST_PEAK
    for change in fixture.changes:
        move = move_without(fixture, change, tokens, logits)
        print(f"    without {change.what}: {move:.3f}")
        assert move > (LEAST_GELU_MOVE if "gelu" in change.what else LEAST_MOVE)
    save_file({"tokens": tokens, "logits": logits}, folder / "expected.safetensors")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in FIXTURES:
        if each.name in sys.argv[1:] or not sys.argv[1:]:
            make(each)
    total = sum(f.stat().st_size for each in FIXTURES for f in (HERE / each.name).iterdir())
    print(f"{total / 1e6:.2f} MB")
