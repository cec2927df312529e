package trtllm

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import "unsafe"

// Engine is a model compiled for this machine.
type Engine struct {
	handle *C.trtllm_engine
}

// LoadMode is how weights come into memory.
type LoadMode int32

// The load modes: the file is mapped and must not be changed while it is in use, or read and may then be changed.
const (
	LoadModeMap  LoadMode = C.TRTLLM_LOAD_MODE_MAP
	LoadModeRead LoadMode = C.TRTLLM_LOAD_MODE_READ
)

// EngineConfig says how an engine is loaded; its zero value holds the defaults.
type EngineConfig struct {
	Progress Progress
	LoadMode LoadMode
	// TrustWeights leaves out holding every weight against its checksum.
	TrustWeights bool
}

// EngineInfo is what is to know about an engine.
type EngineInfo struct {
	Architecture    string
	EOSTokens       []uint32
	WeightBytes     uint64
	KVBytesPerToken uint64
	// BOSToken begins a text; -1 when there is none.
	BOSToken      int64
	VocabSize     uint32
	HiddenSize    uint32
	Layers        uint32
	MaxPositions  uint32
	Precision     Precision
	KVPrecision   Precision
	HeadPrecision Precision
	Target        Target
}

// LoadEngine loads an engine file; nil stands for the defaults. Close the engine when it is not needed any more.
func LoadEngine(path string, config *EngineConfig) (*Engine, error) {
	if config == nil {
		config = &EngineConfig{}
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	c, err := config.toC()
	if err != nil {
		return nil, err
	}
	engine := &Engine{}
	err = reported(config.Progress, func(progress C.uintptr_t) C.trtllm_status {
		return C.bridge_engine_load(name, &c, progress, &engine.handle)
	})
	if err != nil {
		return nil, err
	}
	return engine, nil
}

func (e *EngineConfig) toC() (c C.trtllm_engine_config, err error) {
	err = call(func() C.trtllm_status { return C.trtllm_engine_config_init(C.size_t(unsafe.Sizeof(c)), &c) })
	c.load_mode = C.int32_t(e.LoadMode)
	c.verify_weights = flag(!e.TrustWeights)
	return c, err
}

// Close destroys the engine. What was made from it keeps the weights until it is closed too.
func (e *Engine) Close() error {
	return call(func() C.trtllm_status { return C.trtllm_engine_destroy(e.handle) })
}

// Info tells what is to know about the engine. It must not run into a Close of another goroutine.
func (e *Engine) Info() (EngineInfo, error) {
	var info C.trtllm_engine_info
	err := call(func() C.trtllm_status {
		return C.trtllm_engine_get_info(e.handle, C.size_t(unsafe.Sizeof(info)), &info)
	})
	if err != nil {
		return EngineInfo{}, err
	}
	return EngineInfo{
		Architecture:    C.GoString(info.architecture),
		EOSTokens:       tokensFromC(info.eos_tokens, info.eos_token_count),
		WeightBytes:     uint64(info.weight_bytes),
		KVBytesPerToken: uint64(info.kv_bytes_per_token),
		BOSToken:        int64(info.bos_token),
		VocabSize:       uint32(info.vocab_size),
		HiddenSize:      uint32(info.hidden_size),
		Layers:          uint32(info.layers),
		MaxPositions:    uint32(info.max_positions),
		Precision:       Precision(info.precision),
		KVPrecision:     Precision(info.kv_precision),
		HeadPrecision:   Precision(info.head_precision),
		Target:          Target(info.target),
	}, nil
}

// Sampling gives the generation defaults of the checkpoint, to be changed and used.
func (e *Engine) Sampling() (Sampling, error) {
	var sampling C.trtllm_sampling
	err := call(func() C.trtllm_status {
		return C.trtllm_engine_get_sampling(e.handle, C.size_t(unsafe.Sizeof(sampling)), &sampling)
	})
	return samplingFromC(&sampling), err
}

// Inspect describes the engine as JSON.
func (e *Engine) Inspect() (string, error) {
	return text(func(buffer *C.char, capacity C.size_t, length *C.size_t) C.trtllm_status {
		return C.trtllm_engine_inspect(e.handle, buffer, capacity, length)
	})
}
