"""The golden checkpoints: what each one is, and what must not be left out of it."""

from dataclasses import dataclass, field


@dataclass
class Change:
    """One part of a model taken away. A fixture is worth keeping only if its logits notice."""

    what: str
    config: dict = field(default_factory=dict)
    fill: dict = field(default_factory=dict)  # end of a weight's name -> the value it is overwritten with


@dataclass
class Fixture:
    name: str
    config: dict
    changes: list
    dtype: str = "float32"
    tokens: int = 80
    shards: int = 1
    hub_names: bool = False  # without the `transformer.` prefix and with the masks the first GPT-2 files hold


def llama(**changed):
    """A config as transformers 4 writes it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": 64,
        "initializer_range": 0.02,
        "intermediate_size": 72,
        "max_position_embeddings": 128,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.51.3",
        "use_cache": True,
        "vocab_size": 128,
    } | changed


def llama_5(rope_parameters, **changed):
    """A config as transformers 5 writes it."""
    config = llama(dtype="float32", rope_parameters=rope_parameters, transformers_version="5.23.0", **changed)
    config["layer_types"] = ["full_attention"] * config["num_hidden_layers"]
    return {k: v for k, v in sorted(config.items()) if k not in ("rope_scaling", "rope_theta", "torch_dtype")}


def roped(scaling, **changed):
    """Few KV heads and long heads: more frequencies, so more of the scaling's ramp is seen."""
    return llama(head_dim=32, num_key_value_heads=1, num_attention_heads=2, rope_scaling=scaling, **changed)


def without_biases(config):
    """Of a Llama config, what families have that do not state biases."""
    return {k: v for k, v in config.items() if k not in ("attention_bias", "mlp_bias", "pretraining_tp")}


def qwen2(**changed):
    """A config as transformers 4 writes it; the window is stated even where it is switched off."""
    config = without_biases(llama(architectures=["Qwen2ForCausalLM"], model_type="qwen2", torch_dtype="bfloat16"))
    del config["head_dim"]
    return config | {"max_window_layers": 1, "sliding_window": 20, "use_sliding_window": False} | changed


def mistral(**changed):
    """A config as transformers 5 writes it."""
    config = without_biases(llama_5(BASE_ROPE, architectures=["MistralForCausalLM"], model_type="mistral", **changed))
    del config["layer_types"]
    return config | {"dtype": "bfloat16"}


def gpt2(**changed):
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 127,
        "embd_pdrop": 0.1,
        "eos_token_id": 127,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 80,
        "n_embd": 64,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 80,
        "resid_pdrop": 0.1,
        "vocab_size": 128,
    } | changed


GAINS = [
    Change("layer norm gains", fill={"layernorm.weight": 1.0}),
    Change("final norm gain", fill={"model.norm.weight": 1.0}),
]
SCALING = Change("rope scaling", config={"rope_scaling": None})
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
BASE_ROPE = {"rope_theta": 500.0, "rope_type": "default"}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QWEN2_PARTS = [*GAINS, *(Change(f"{p} bias", fill={f"{p}.bias": 0.0}) for p in PROJECTIONS[:3])]
GPT2_BIASES = ["attn.c_attn.bias", "attn.c_proj.bias", "mlp.c_fc.bias", "mlp.c_proj.bias", "ln_1.bias", "ln_2.bias", "ln_f.bias"]
GPT2_PARTS = [
    *(Change(name, fill={name: 0.0}) for name in GPT2_BIASES),
    *(Change(f"{name} gain", fill={f"{name}.weight": 1.0}) for name in ["ln_1", "ln_2", "ln_f"]),
    Change("positions", fill={"wpe.weight": 0.0}),
    Change("tanh in gelu", config={"activation_function": "gelu"}),
]

FIXTURES = [
    Fixture("llama_base", llama_5(BASE_ROPE), [
        *GAINS,
        Change("rope theta", config={"rope_parameters": BASE_ROPE | {"rope_theta": 10000.0}})]),
    Fixture("llama_tied", llama(tie_word_embeddings=True, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
                                head_dim=32, rms_norm_eps=0.05, torch_dtype="bfloat16"), [
        *GAINS,
        Change("epsilon", config={"rms_norm_eps": 1e-5})], dtype="bfloat16"),
    Fixture("llama3_rope", roped(LLAMA3, torch_dtype="bfloat16"), [
        *GAINS,
        SCALING,
        *(Change(key, config={"rope_scaling": LLAMA3 | {key: LLAMA3[key] * by}})
          for key, by in [("factor", 2), ("low_freq_factor", 1.5), ("high_freq_factor", 2)])], dtype="bfloat16"),
    Fixture("llama_linear", roped({"type": "linear", "factor": 4.0}, torch_dtype="float16"), [*GAINS, SCALING], dtype="float16"),
    Fixture("llama_yarn", roped(YARN, torch_dtype="bfloat16"), [
        *GAINS,
        SCALING,
        Change("attention factor", config={"rope_scaling": YARN | {"attention_factor": 1.0}})], dtype="bfloat16"),
    Fixture("llama_yarn_mscale", roped(YARN | {"mscale": 2.0, "mscale_all_dim": 0.5, "beta_fast": 16, "beta_slow": 2},
                                       torch_dtype="bfloat16"), [
        *GAINS,
        SCALING,
        Change("mscale", config={"rope_scaling": YARN | {"beta_fast": 16, "beta_slow": 2}}),
        Change("betas", config={"rope_scaling": YARN | {"mscale": 2.0, "mscale_all_dim": 0.5}})], dtype="bfloat16"),
    Fixture("llama_bias", llama(attention_bias=True, mlp_bias=True, torch_dtype="float16"), [
        *GAINS,
        *(Change(f"{p} bias", fill={f"{p}.bias": 0.0}) for p in PROJECTIONS)], dtype="float16"),
    Fixture("llama_sharded", llama(head_dim=64, num_attention_heads=2, num_key_value_heads=1, torch_dtype="bfloat16"), GAINS,
            dtype="bfloat16", shards=3),
    Fixture("qwen2", qwen2(tie_word_embeddings=True), [
        *QWEN2_PARTS,
        Change("switch that is off", config={"use_sliding_window": True})], dtype="bfloat16"),
    Fixture("qwen2_sliding", qwen2(use_sliding_window=True, num_hidden_layers=3), [
        *QWEN2_PARTS,
        Change("switch that is on", config={"use_sliding_window": False}),
        *(Change(f"window of 20 ({n})", config={"sliding_window": n}) for n in [19, 21]),
        *(Change(f"first sliding layer 1 ({n})", config={"max_window_layers": n}) for n in [0, 2])], dtype="bfloat16"),
    Fixture("mistral", mistral(sliding_window=24), [
        *GAINS,
        *(Change(f"window of 24 ({n})", config={"sliding_window": n}) for n in [None, 23, 25])], dtype="bfloat16"),
    Fixture("gpt2", gpt2(), GPT2_PARTS),
    Fixture("gpt2_scaled", gpt2(scale_attn_by_inverse_layer_idx=True, n_inner=96), [
        *GPT2_PARTS,
        Change("scale by layer", config={"scale_attn_by_inverse_layer_idx": False})], dtype="bfloat16", hub_names=True),
]
