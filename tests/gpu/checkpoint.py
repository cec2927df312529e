"""A bf16 checkpoint with random weights on disk: checkpoint.py CONFIG FOLDER. Needs torch and safetensors."""

import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file

LAYERS_PER_FILE = 8


def shapes(config):
    """Tensors of a Llama by file."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv = config["num_key_value_heads"] * hidden // heads
    vocabulary = [config["vocab_size"], hidden]
    yield {"model.embed_tokens.weight": vocabulary, "lm_head.weight": vocabulary, "model.norm.weight": [hidden]}
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "self_attn.q_proj": [hidden, hidden],
        "self_attn.k_proj": [kv, hidden],
        "self_attn.v_proj": [kv, hidden],
        "self_attn.o_proj": [hidden, hidden],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    for first in range(0, config["num_hidden_layers"], LAYERS_PER_FILE):
        layers = range(first, min(first + LAYERS_PER_FILE, config["num_hidden_layers"]))
        yield {f"model.layers.{i}.{name}.weight": shape for i in layers for name, shape in layer.items()}


def main(config_path, folder):
    folder = pathlib.Path(folder)
    files = list(shapes(json.loads(pathlib.Path(config_path).read_text())))
    index = {}
    for number, tensors in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        random = {key: torch.randn(shape, device="cuda", dtype=torch.bfloat16) * 0.02 for key, shape in tensors.items()}
        save_file({key: tensor.cpu() for key, tensor in random.items()}, folder / name)
        index.update(dict.fromkeys(tensors, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    shutil.copy(config_path, folder / "config.json")


main(*sys.argv[1:])
