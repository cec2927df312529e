package trtllm

// #include <stdlib.h>
// #include <trtllm.h>
import "C"

import (
	"encoding/json"
	"time"
	"unsafe"
)

// Request describes a generation: a prompt, how to sample, what to return. It may be changed and submitted again.
type Request struct {
	// The prompt is Messages (rendered by the engine's chat template), else Tokens, else Text.
	Messages []Message
	Tokens   []uint32
	Text     string
	// Sampling nil: the engine's defaults.
	Sampling *Sampling
	// StopStrings end the generation and are not delivered; StopTokens end it and are delivered as tokens.
	StopStrings []string
	StopTokens  [][]uint32
	// LogitBias is added to the logits of tokens; minus infinity bans one.
	LogitBias map[uint32]float32
	// Whole: one response per sequence, at its end, instead of one as tokens come.
	Whole bool
	// TimeLimit ends the request when it is not finished so long after its submission; 0: never.
	TimeLimit time.Duration
	// Salt: cached prefixes are shared only between requests of equal salt.
	Salt []byte
}

// submit makes the library's request, lets prepare change it, and submits it.
func (r *Request) submit(executor *Executor, prepare func(*C.trtllm_request) error) (requestID uint64, err error) {
	var request *C.trtllm_request
	if err = call(func() C.trtllm_status { return C.trtllm_request_create(&request) }); err != nil {
		return 0, err
	}
	defer C.trtllm_request_destroy(request)
	for _, set := range []func(*C.trtllm_request) error{r.setPrompt, r.setSampling, r.setStops, r.setRest, prepare} {
		if err = set(request); err != nil {
			return 0, err
		}
	}
	var id C.uint64_t
	err = call(func() C.trtllm_status { return C.trtllm_executor_submit(executor.handle, request, &id) })
	return uint64(id), err
}

func (r *Request) setPrompt(request *C.trtllm_request) error {
	switch {
	case r.Messages != nil:
		chat, err := json.Marshal(r.Messages)
		if err != nil {
			return err
		}
		return withBytes(chat, func(text *C.char, length C.size_t) C.trtllm_status {
			return C.trtllm_request_set_chat(request, text, length)
		})
	case r.Tokens != nil:
		return call(func() C.trtllm_status {
			return C.trtllm_request_set_tokens(request, tokensToC(r.Tokens), C.size_t(len(r.Tokens)))
		})
	default:
		return withBytes([]byte(r.Text), func(text *C.char, length C.size_t) C.trtllm_status {
			return C.trtllm_request_set_text(request, text, length)
		})
	}
}

func (r *Request) setSampling(request *C.trtllm_request) error {
	if r.Sampling == nil {
		return nil
	}
	sampling := r.Sampling.toC()
	return call(func() C.trtllm_status { return C.trtllm_request_set_sampling(request, &sampling) })
}

func (r *Request) setStops(request *C.trtllm_request) error {
	for _, stop := range r.StopStrings {
		err := withBytes([]byte(stop), func(text *C.char, length C.size_t) C.trtllm_status {
			return C.trtllm_request_add_stop_string(request, text, length)
		})
		if err != nil {
			return err
		}
	}
	for _, stop := range r.StopTokens {
		tokens := stop
		err := call(func() C.trtllm_status {
			return C.trtllm_request_add_stop_tokens(request, tokensToC(tokens), C.size_t(len(tokens)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Request) setRest(request *C.trtllm_request) error {
	for token, bias := range r.LogitBias {
		token, bias := C.uint32_t(token), C.float(bias)
		err := call(func() C.trtllm_status { return C.trtllm_request_add_logit_bias(request, token, bias) })
		if err != nil {
			return err
		}
	}
	if err := call(func() C.trtllm_status { return C.trtllm_request_set_stream(request, flag(!r.Whole)) }); err != nil {
		return err
	}
	err := call(func() C.trtllm_status {
		return C.trtllm_request_set_time_limit(request, C.uint64_t(r.TimeLimit.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return withBytes(r.Salt, func(salt *C.char, length C.size_t) C.trtllm_status {
		return C.trtllm_request_set_salt(request, (*C.uint8_t)(unsafe.Pointer(salt)), length)
	})
}

// withBytes makes a call with a copy of bytes in C's memory.
func withBytes(bytes []byte, function func(*C.char, C.size_t) C.trtllm_status) error {
	copied := C.CBytes(bytes)
	defer C.free(copied)
	return call(func() C.trtllm_status { return function((*C.char)(copied), C.size_t(len(bytes))) })
}
