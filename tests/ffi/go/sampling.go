package trtllm

// #include <trtllm.h>
import "C"

import "unsafe"

// Sampling says how a token is chosen, and when a generation ends. Start from NewSampling or Engine.Sampling.
type Sampling struct {
	Seed              uint64
	Temperature       float32
	TopK              uint32
	TopP              float32
	MinP              float32
	RepetitionPenalty float32
	PresencePenalty   float32
	FrequencyPenalty  float32
	MinTokens         uint32
	MaxTokens         uint32
	// N sequences are generated from the one prompt.
	N uint32
	// Logprobs of so many most likely tokens beside the chosen one; 0: of the chosen one alone; -1: none.
	Logprobs int32
	// IgnoreEOS goes on behind the end of the text.
	IgnoreEOS bool
}

// NewSampling gives the library's defaults: greedy, at most 128 tokens.
func NewSampling() Sampling {
	var sampling C.trtllm_sampling
	// Fails only for a size that is none.
	_ = call(func() C.trtllm_status {
		return C.trtllm_sampling_init(C.size_t(unsafe.Sizeof(sampling)), &sampling)
	})
	return samplingFromC(&sampling)
}

func samplingFromC(c *C.trtllm_sampling) Sampling {
	return Sampling{
		Seed:              uint64(c.seed),
		Temperature:       float32(c.temperature),
		TopK:              uint32(c.top_k),
		TopP:              float32(c.top_p),
		MinP:              float32(c.min_p),
		RepetitionPenalty: float32(c.repetition_penalty),
		PresencePenalty:   float32(c.presence_penalty),
		FrequencyPenalty:  float32(c.frequency_penalty),
		MinTokens:         uint32(c.min_tokens),
		MaxTokens:         uint32(c.max_tokens),
		N:                 uint32(c.n),
		Logprobs:          int32(c.logprobs),
		IgnoreEOS:         c.ignore_eos != 0,
	}
}

func (s *Sampling) toC() C.trtllm_sampling {
	c := C.trtllm_sampling{
		seed:               C.uint64_t(s.Seed),
		temperature:        C.float(s.Temperature),
		top_k:              C.uint32_t(s.TopK),
		top_p:              C.float(s.TopP),
		min_p:              C.float(s.MinP),
		repetition_penalty: C.float(s.RepetitionPenalty),
		presence_penalty:   C.float(s.PresencePenalty),
		frequency_penalty:  C.float(s.FrequencyPenalty),
		min_tokens:         C.uint32_t(s.MinTokens),
		max_tokens:         C.uint32_t(s.MaxTokens),
		n:                  C.uint32_t(s.N),
		logprobs:           C.int32_t(s.Logprobs),
		ignore_eos:         flag(s.IgnoreEOS),
	}
	c.struct_size = C.size_t(unsafe.Sizeof(c))
	return c
}
