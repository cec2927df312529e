"""The golden checkpoints: what each one is, and what must not be left out of it."""

from dataclasses import dataclass, field


@dataclass
class Change:
    """One part of a model taken away. A fixture is worth keeping only if its logits notice."""

    what: str
    config: dict = field(default_factory=dict)
    fill: dict = field(default_factory=dict)  # end of a weight's name -> the value it is overwritten with
    shift: dict = field(default_factory=dict)  # end of a weight's name -> what is added to it
    buffers: dict = field(default_factory=dict)  # end of a buffer's name -> the value it is overwritten with
    skip: list = field(default_factory=list)  # ends of names of modules that hand on what they get


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


def qwen3(**changed):
    """A config as transformers 4 writes it. The heads are wider than the hidden size shares among them."""
    config = llama(architectures=["Qwen3ForCausalLM"], head_dim=32, model_type="qwen3", torch_dtype="bfloat16")
    del config["mlp_bias"], config["pretraining_tp"]
    return config | {"max_window_layers": 1, "sliding_window": 20, "use_sliding_window": False} | changed


def phi3(**changed):
    """A config as transformers 4 writes it, for the first files of the family."""
    config = without_biases(llama(architectures=["Phi3ForCausalLM"], model_type="phi3", torch_dtype="bfloat16"))
    del config["head_dim"]
    return config | {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "original_max_position_embeddings": 128,
        "pad_token_id": 3,
        "sliding_window": None,
    } | changed


def phi3_5():
    """A config as transformers 5 writes it, with a pretraining shorter than the fixture's tokens."""
    config = phi3(rope_parameters=PHI3_LONG, original_max_position_embeddings=32, tie_word_embeddings=True, dtype="bfloat16")
    return {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta", "torch_dtype")}


def gemma2(**changed):
    """A config as transformers 4 writes it. It says nothing of layers that slide and of the head that is tied."""
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": 4.0,
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "eos_token_id": 1,
        "final_logit_softcapping": 3.0,
        "head_dim": 32,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 64,
        "initializer_range": 0.02,
        "intermediate_size": 72,
        "max_position_embeddings": 128,
        "model_type": "gemma2",
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 24,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 20,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.3",
        "use_cache": True,
        "vocab_size": 128,
    } | changed


def gemma3(**changed):
    """A config as transformers 4 writes it: every third layer sees everything and has the scaled rope."""
    config = gemma2(architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", rope_theta=5000.0)
    del config["hidden_act"]
    return config | {
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "head_dim": 16,
        "num_hidden_layers": 4,
        "rope_local_base_freq": 100.0,
        "rope_scaling": {"factor": 4.0, "rope_type": "linear"},
        "sliding_window_pattern": 3,
    } | changed


def gemma3_5(**changed):
    """A config as transformers 5 writes it, with a rope for each type of layer."""
    gone = ("rope_local_base_freq", "rope_scaling", "rope_theta", "sliding_window_pattern", "torch_dtype")
    config = {key: value for key, value in gemma3().items() if key not in gone}
    return config | {
        "dtype": "bfloat16",
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "num_hidden_layers": 3,
        "rope_parameters": GEMMA3_ROPES,
        "tie_word_embeddings": True,
        "transformers_version": "5.23.0",
        "use_bidirectional_attention": False,
    } | changed


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

HEAD_NORMS = [
    *(Change(f"{norm} gain", fill={f"{norm}.weight": 1.0}) for norm in ["q_norm", "k_norm"]),
    Change("norms of heads", skip=["q_norm", "k_norm"]),
]
PHI3_FACTORS = {"long_factor": [1.0 + 0.25 * i for i in range(16)], "short_factor": [1.0 + 0.05 * i for i in range(16)]}
PHI3_SU = PHI3_FACTORS | {"original_max_position_embeddings": 128, "type": "su"}
PHI3_LONG = {"rope_theta": 10000.0, "rope_type": "longrope", "partial_rotary_factor": 0.75} | {
    name: factors[:12] for name, factors in PHI3_FACTORS.items()}
PHI3_PARTS = [*GAINS, Change("tensors in their order", fill={"qkv_proj.weight": 0.02})]
GEMMA_NORMS = [f"{place}_layernorm" for place in
               ["input", "post_attention", "pre_feedforward", "post_feedforward"]]
GEMMA_PARTS = [
    Change("layer norm gains", fill={"layernorm.weight": 0.0}),
    Change("final norm gain", fill={"model.norm.weight": 0.0}),
    Change("one more than gains as stored", shift={"norm.weight": -1.0}),
    *(Change(norm, skip=[norm]) for norm in GEMMA_NORMS),
    Change("scaled embeddings", buffers={"embed_scale": 1.0}),
    Change("scale of queries", config={"query_pre_attn_scalar": 32}),
    Change("tanh in gelu", config={"hidden_activation": "gelu"}),
    *(Change(f"window of 20 ({n})", config={"sliding_window": n}) for n in [19, 21]),
]
GEMMA3_ROPES = {
    "full_attention": {"factor": 4.0, "rope_theta": 5000.0, "rope_type": "linear"},
    "sliding_attention": {"rope_theta": 100.0, "rope_type": "default"},
}
GEMMA_HEAD_NORMS = [
    *(Change(f"{norm} gain", fill={f"{norm}.weight": 0.0}) for norm in ["q_norm", "k_norm"]),
    Change("norms of heads", skip=["q_norm", "k_norm"]),
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
    Fixture("qwen3", qwen3(tie_word_embeddings=True), [
        *GAINS,
        *HEAD_NORMS,
        Change("switch that is off", config={"use_sliding_window": True})], dtype="bfloat16"),
    Fixture("qwen3_biased", qwen3(attention_bias=True, use_sliding_window=True, head_dim=8, tie_word_embeddings=True), [
        *GAINS,
        *HEAD_NORMS,
        *(Change(f"{p} bias", fill={f"{p}.bias": 0.0}) for p in PROJECTIONS[:4]),
        Change("switch that is on", config={"use_sliding_window": False}),
        *(Change(f"window of 20 ({n})", config={"sliding_window": n}) for n in [19, 21])], dtype="bfloat16"),
    Fixture("phi3", phi3(rope_scaling=PHI3_SU, max_position_embeddings=256, tie_word_embeddings=True), [
        *PHI3_PARTS,
        Change("short factors", config={"rope_scaling": PHI3_SU | {"short_factor": [1.0] * 16}}),
        Change("attention factor", config={"max_position_embeddings": 128})], dtype="bfloat16"),
    Fixture("phi3_long", phi3_5(), [
        *PHI3_PARTS,
        Change("long factors", config={"rope_parameters": PHI3_LONG | {"long_factor": [1.0] * 12}}),
        Change("attention factor", config={"rope_parameters": PHI3_LONG | {"attention_factor": 1.0}})], dtype="bfloat16"),
    Fixture("phi3_partial", phi3(partial_rotary_factor=0.75, sliding_window=24), [
        *PHI3_PARTS,
        Change("partial rotation", config={"partial_rotary_factor": 1.0}),
        *(Change(f"window of 24 ({n})", config={"sliding_window": n}) for n in [None, 23, 25])], dtype="bfloat16"),
    Fixture("gemma2", gemma2(), [
        *GEMMA_PARTS,
        Change("capped scores", config={"attn_logit_softcapping": None}),
        Change("capped logits", config={"final_logit_softcapping": None}),
        Change("layers that slide", config={"layer_types": ["full_attention", "sliding_attention", "full_attention"]})],
        dtype="bfloat16"),
    Fixture("gemma3", gemma3(), [
        *GEMMA_PARTS,
        *GEMMA_HEAD_NORMS,
        Change("scaling of the global rope", config={"rope_scaling": None}),
        Change("theta of the global rope", config={"rope_theta": 100.0}),
        Change("theta of the local rope", config={"rope_local_base_freq": 5000.0}),
        Change("layers that slide", config={"sliding_window_pattern": 4})], dtype="bfloat16"),
    Fixture("gemma3_layers", gemma3_5(final_logit_softcapping=3.0, attention_bias=True), [
        *GEMMA_PARTS,
        *GEMMA_HEAD_NORMS,
        *(Change(f"{p} bias", fill={f"{p}.bias": 0.0}) for p in PROJECTIONS[:4]),
        Change("capped logits", config={"final_logit_softcapping": None}),
        *(Change(f"rope of {kind} layers", config={"rope_parameters": dict.fromkeys(GEMMA3_ROPES, GEMMA3_ROPES[kind])})
          for kind in GEMMA3_ROPES),
        Change("layers that slide", config={"layer_types": ["full_attention", "sliding_attention", "full_attention"]})],
        dtype="bfloat16"),
    Fixture("gpt2", gpt2(), GPT2_PARTS),
    Fixture("gpt2_scaled", gpt2(scale_attn_by_inverse_layer_idx=True, n_inner=96), [
        *GPT2_PARTS,
        Change("scale by layer", config={"scale_attn_by_inverse_layer_idx": False})], dtype="bfloat16", hub_names=True),
]
