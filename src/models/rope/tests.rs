//! Expected values: `inv_freq` and `attention_scaling` of the reference's Llama rotary embedding
//! (transformers 5.23, torch 2.15 on x86-64), as bits. Its vectorised power is off by one unit in the last place at
//! times, which is what the tolerance is for.

use super::*;
use crate::checkpoint::ModelConfig;

struct Case {
    name: &'static str,
    config: &'static str,
    scale: f64,
    bits: &'static [u32],
}

#[test]
fn frequencies_are_those_of_the_reference() {
    for case in CASES {
        let config = ModelConfig::parse(case.config.as_bytes(), None).unwrap();
        let found = frequencies(&config.rope.unwrap(), config.served_positions);
        assert!((f64::from(found.scale) - case.scale).abs() < 1e-7, "{}: scale {}", case.name, found.scale);
        assert_eq!(found.inverse.len(), case.bits.len(), "{}", case.name);
        for (i, (f, bits)) in found.inverse.iter().zip(case.bits).enumerate() {
            assert!(f.to_bits().abs_diff(*bits) <= 1, "{} {i}: {f:e} is not {:e}", case.name, f32::from_bits(*bits));
        }
    }
}

/// Three quarters of each head rotate, by stretches for short contexts as long as no position lies beyond the pretraining's.
#[test]
fn long_rope_is_chosen_by_the_positions_served() {
    let stretches = |step: f64| (0..24).map(|i| (1.0 + step * f64::from(i)).to_string()).collect::<Vec<_>>().join(", ");
    let config = format!(
        r#"{{"architectures": ["Phi3ForCausalLM"], "hidden_size": 128, "num_attention_heads": 2, "partial_rotary_factor": 0.75,
        "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
        "rope_scaling": {{"type": "longrope", "short_factor": [{}], "long_factor": [{}]}}}}"#,
        stretches(0.0625),
        stretches(1.5)
    );
    let config = ModelConfig::parse(config.as_bytes(), None).unwrap();
    assert_eq!(config.served_positions, 131_072);
    for (positions, bits) in [(1, SHORT), (4096, SHORT), (4097, LONG), (131_072, LONG)] {
        let found = frequencies(config.rope.as_ref().unwrap(), positions);
        assert!((f64::from(found.scale) - 1.190_238_071_423_808_3).abs() < 1e-7);
        assert_eq!(found.inverse.len(), bits.len());
        for (f, bits) in found.inverse.iter().zip(bits) {
            assert!(f.to_bits().abs_diff(bits) <= 1, "{positions}: {f:e} is not {:e}", f32::from_bits(bits));
        }
    }
}

const SHORT: [u32; 24] = [
    0x3f800000, 0x3f2426bc, 0x3ed33e6e, 0x3e885817, 0x3e307dc4, 0x3de50859, 0x3d94f209, 0x3d422076, 0x3cfd7e1b,
    0x3ca5cb60, 0x3c593856, 0x3c0e8258, 0x3bbb3ee7, 0x3b765713, 0x3b223c3d, 0x3ad5eda5, 0x3a8d3169, 0x3a3a8eb9,
    0x39f6b949, 0x39a349cf, 0x39585053, 0x390f63c8, 0x38be3d2f, 0x387c91f6,
];
const LONG: [u32; 24] = [
    0x3f800000, 0x3e8b8753, 0x3deda63c, 0x3d6b80e2, 0x3cfc2162, 0x3c8d7619, 0x3c23d70a, 0x3bc22076, 0x3b69fe41,
    0x3b0eed1e, 0x3ab07dc6, 0x3a5bdf0c, 0x3a09f874, 0x39ae3d97, 0x395d3ae0, 0x390d1a05, 0x38b4ba1f, 0x38685120,
    0x3815cbec, 0x37c1bb5e, 0x377b33fd, 0x37233e66, 0x36d49ebb, 0x368abc58,
];

const CASES: &[Case] = &[
    Case {
        name: "default 64",
        config: r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_attention_heads": 2, "max_position_embeddings": 2048, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}"#,
        scale: 1.0,
        bits: &[
            0x3f800000, 0x3f3ff911, 0x3f0ff59a, 0x3ed7e89b, 0x3ea1e89b, 0x3e72d423, 0x3e361887, 0x3e088d77, 0x3dcccccd,
            0x3d99940d, 0x3d6655c2, 0x3d2cba15, 0x3d0186e3, 0x3cc2434f, 0x3c91ad39, 0x3c5a7bf2, 0x3c23d70a, 0x3bf5b9b0,
            0x3bb8449c, 0x3b8a2e77, 0x3b4f3e38, 0x3b1b690d, 0x3ae91528, 0x3aaec98e, 0x3a83126f, 0x3a44948c, 0x3a136a16,
            0x39dd1725, 0x39a5cb60, 0x3978a815, 0x393a7753, 0x390bd472,
        ],
    },
    Case {
        name: "default 128",
        config: r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_attention_heads": 2, "max_position_embeddings": 8192, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}"#,
        scale: 1.0,
        bits: &[
            0x3f800000, 0x3f508ac1, 0x3f29e1c6, 0x3f0a6384, 0x3ee177bc, 0x3eb7ab7d, 0x3e959ee3, 0x3e73c461, 0x3e4693b0,
            0x3e21c3a0, 0x3e03c6a0, 0x3dd6b19c, 0x3daee4ad, 0x3d8e7898, 0x3d681e67, 0x3d3d1684, 0x3d1a08c8, 0x3cfaf53f,
            0x3ccc6f49, 0x3ca68939, 0x3c87a9c3, 0x3c5d06ec, 0x3c340d6d, 0x3c12ac7f, 0x3beef74f, 0x3bc2aa76, 0x3b9e9402,
            0x3b812e35, 0x3b527720, 0x3b2b72dc, 0x3b0baa41, 0x3ae38c10, 0x3ab95d21, 0x3a970023, 0x3a7603ea, 0x3a486886,
            0x3a23418d, 0x3a04fdbf, 0x39d8ac81, 0x39b08199, 0x398fc8f8, 0x396a426f, 0x393ed4f4, 0x391b7475, 0x38fd45c3,
            0x38ce51f5, 0x38a8126b, 0x3888ea0f, 0x385f10c4, 0x3835b687, 0x381406cb, 0x37f12b80, 0x37c47610, 0x37a00a69,
            0x37825f34, 0x37546808, 0x372d07a7, 0x370cf400, 0x36e5a54d, 0x36bb12c7, 0x369864a7, 0x367848c2, 0x364a41b0,
            0x3624c2ff,
        ],
    },
    Case {
        name: "linear",
        config: r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_attention_heads": 2, "max_position_embeddings": 2048, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.5}}"#,
        scale: 1.0,
        bits: &[
            0x3ecccccd, 0x3e99940e, 0x3e6655c3, 0x3e2cba16, 0x3e0186e2, 0x3dc2434f, 0x3d91ad39, 0x3d5a7bf2, 0x3d23d70a,
            0x3cf5b9ae, 0x3cb8449b, 0x3c8a2e77, 0x3c4f3e38, 0x3c1b690c, 0x3be91528, 0x3baec98e, 0x3b83126e, 0x3b44948d,
            0x3b136a16, 0x3add1725, 0x3aa5cb60, 0x3a78a815, 0x3a3a7753, 0x3a0bd472, 0x39d1b718, 0x399d43a3, 0x396bdcf0,
            0x3930df51, 0x3904a2b3, 0x38c6ecde, 0x38952c42, 0x385fba50,
        ],
    },
    Case {
        name: "llama3 64",
        config: r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_attention_heads": 2, "max_position_embeddings": 131072, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}"#,
        scale: 1.0,
        bits: &[
            0x3f800000, 0x3f29e1c6, 0x3ee177bc, 0x3e959ee3, 0x3e4693b0, 0x3e03c6a0, 0x3daee4ad, 0x3d681e67, 0x3d1a08c8,
            0x3ccc6f49, 0x3c87a9c3, 0x3c340d6d, 0x3beef74f, 0x3b9e9402, 0x3b527720, 0x3aa9279b, 0x39e13620, 0x38cb98f7,
            0x37a3418d, 0x3758ac81, 0x370fc8f8, 0x36bed4f4, 0x367d45c3, 0x3628126b, 0x35df10c4, 0x359406cb, 0x35447610,
            0x35025f34, 0x34ad07a7, 0x3465a54d, 0x341864a7, 0x33ca41b0,
        ],
    },
    Case {
        name: "llama3 128",
        config: r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_attention_heads": 2, "max_position_embeddings": 131072, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}"#,
        scale: 1.0,
        bits: &[
            0x3f800000, 0x3f508ac1, 0x3f29e1c6, 0x3f0a6384, 0x3ee177bc, 0x3eb7ab7d, 0x3e959ee3, 0x3e73c461, 0x3e4693b0,
            0x3e21c3a0, 0x3e03c6a0, 0x3dd6b19c, 0x3daee4ad, 0x3d8e7898, 0x3d681e67, 0x3d3d1684, 0x3d1a08c8, 0x3cfaf53f,
            0x3ccc6f49, 0x3ca68939, 0x3c87a9c3, 0x3c5d06ec, 0x3c340d6d, 0x3c12ac7f, 0x3beef74f, 0x3bc2aa76, 0x3b9e9402,
            0x3b812e35, 0x3b527720, 0x3b0dfd06, 0x3ab3d11d, 0x3a60979e, 0x3a0995d2, 0x39a3f108, 0x393b2dd2, 0x38c86886,
            0x38a3418d, 0x3884fdbf, 0x3858ac81, 0x38308199, 0x380fc8f8, 0x37ea426f, 0x37bed4f4, 0x379b7475, 0x377d45c3,
            0x374e51f5, 0x3728126b, 0x3708ea0f, 0x36df10c4, 0x36b5b687, 0x369406cb, 0x36712b80, 0x36447610, 0x36200a69,
            0x36025f34, 0x35d46808, 0x35ad07a7, 0x358cf400, 0x3565a54d, 0x353b12c7, 0x351864a7, 0x34f848c2, 0x34ca41b0,
            0x34a4c2ff,
        ],
    },
    Case {
        name: "yarn",
        config: r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_attention_heads": 2, "max_position_embeddings": 65536, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096}}"#,
        scale: 1.2772588722239782,
        bits: &[
            0x3f800000, 0x3f5dafd7, 0x3f3ff911, 0x3f263de0, 0x3f0ff59a, 0x3ef953cf, 0x3ed7e89b, 0x3ebaf81b, 0x3ea1e89b,
            0x3e8c3504, 0x3e72d423, 0x3e5247ed, 0x3e361887, 0x3e1db040, 0x3e088d77, 0x3dec7fd6, 0x3dcccccd, 0x3db15978,
            0x3d99940d, 0x3d84fe4d, 0x3d6655c2, 0x3d40450f, 0x3d204547, 0x3d056532, 0x3cddb0b6, 0x3cb7e311, 0x3c983c21,
            0x3c7b8744, 0x3c4f4f20, 0x3c2a6cc3, 0x3c0bb42d, 0x3be45015, 0x3bb9e538, 0x3b96bf40, 0x3b735cd2, 0x3b4365df,
            0x3b1beb49, 0x3af706a1, 0x3ac1fc4e, 0x3a96b9d5, 0x3a6727db, 0x3a2e49c8, 0x3a00832d, 0x39b7c0d4, 0x397b0318,
            0x391f24e4, 0x38aec98e, 0x38975c0e, 0x3883126f, 0x386301e2, 0x3844948c, 0x382a3b44, 0x38136a16, 0x37ff4fac,
            0x37dd1725, 0x37bf74d7, 0x37a5cb60, 0x378f9272, 0x3778a815, 0x375753e4, 0x373a7753, 0x37217916, 0x370bd472,
            0x36f22ce2,
        ],
    },
    Case {
        name: "yarn mscale",
        config: r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_attention_heads": 2, "max_position_embeddings": 163840, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.8, "mscale_all_dim": 1.0, "beta_fast": 24, "beta_slow": 2}}"#,
        scale: 0.9461039968029624,
        bits: &[
            0x3f800000, 0x3f3ff911, 0x3f0ff59a, 0x3ed7e89b, 0x3ea1e89b, 0x3e72d423, 0x3e361887, 0x3e088d77, 0x3dcccccd,
            0x3d99940d, 0x3d6655c2, 0x3d2cba15, 0x3ce9cbca, 0x3c9c61b4, 0x3c4e21e9, 0x3c05467d, 0x3ba7ef9d, 0x3b4bf3b8,
            0x3aea0537, 0x3a73330e, 0x39cb1925, 0x3878a815, 0x383a7753, 0x380bd471, 0x37d1b717, 0x379d43a3, 0x376bdcf0,
            0x3730df51, 0x3704a2b3, 0x36c6ecdd, 0x36952c42, 0x365fba4f,
        ],
    },
    Case {
        name: "yarn untruncated",
        config: r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_attention_heads": 2, "max_position_embeddings": 131072, "rope_parameters": {"rope_theta": 150000.0, "rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "truncate": false, "attention_factor": 1.25}}"#,
        scale: 1.25,
        bits: &[
            0x3f800000, 0x3f306535, 0x3ef316a2, 0x3ea77faa, 0x3e66d3fa, 0x3e1f0cfd, 0x3ddb2f9f, 0x3d970764, 0x3d502194,
            0x3d01ddd5, 0x3c9e646f, 0x3c3dec94, 0x3bdea840, 0x3b7cfe14, 0x3b093803, 0x3a89f778, 0x39ef543c, 0x390799b9,
            0x3820adc6, 0x37dd6dfc, 0x37989328, 0x375242fa, 0x3710e12c, 0x36c7a82b, 0x3689928c, 0x363d9647, 0x3602a245,
            0x35b40668, 0x35781728, 0x352af200, 0x34eb93eb, 0x34a252d3,
        ],
    },
];
