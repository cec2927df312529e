package trtllm

// #include <stdlib.h>
// #include <trtllm.h>
import "C"

import (
	"context"
	"strings"
	"unsafe"
)

// Executor serves many requests on one engine at once.
type Executor struct {
	handle *C.trtllm_executor
}

// ExecutorConfig holds limits and resources of an executor. Start from NewExecutorConfig.
type ExecutorConfig struct {
	// MemoryBudget limits weights, workspace and cache together, in bytes; 0: no limit.
	MemoryBudget uint64
	// KVTokens that the cache holds; 0: what the budget leaves, or room for MaxBatchSize sequences.
	KVTokens uint64
	// ISA is the instruction set; empty: the best of this machine.
	ISA                 string
	MaxBatchSize        uint32
	MaxBatchTokens      uint32
	MaxSequenceTokens   uint32
	MaxQueue            uint32
	MaxPendingResponses uint32
	// Threads of a CPU; 0: one for each core.
	Threads             uint32
	PrefixReuse         bool
	Device              uint32
	RefuseStoredKernels bool
}

// NewExecutorConfig gives the library's defaults.
func NewExecutorConfig() ExecutorConfig {
	c := executorDefaults()
	return ExecutorConfig{
		MemoryBudget:        uint64(c.memory_budget),
		KVTokens:            uint64(c.kv_tokens),
		MaxBatchSize:        uint32(c.max_batch_size),
		MaxBatchTokens:      uint32(c.max_batch_tokens),
		MaxSequenceTokens:   uint32(c.max_sequence_tokens),
		MaxQueue:            uint32(c.max_queue),
		MaxPendingResponses: uint32(c.max_pending_responses),
		Threads:             uint32(c.threads),
		PrefixReuse:         c.prefix_reuse != 0,
		Device:              uint32(c.device),
		RefuseStoredKernels: c.refuse_stored_kernels != 0,
	}
}

func executorDefaults() (c C.trtllm_executor_config) {
	// Fails only for a size that is none.
	_ = call(func() C.trtllm_status { return C.trtllm_executor_config_init(C.size_t(unsafe.Sizeof(c)), &c) })
	return c
}

func (e *ExecutorConfig) toC(isa *C.char) C.trtllm_executor_config {
	c := executorDefaults()
	c.memory_budget = C.uint64_t(e.MemoryBudget)
	c.kv_tokens = C.uint64_t(e.KVTokens)
	c.max_batch_size = C.uint32_t(e.MaxBatchSize)
	c.max_batch_tokens = C.uint32_t(e.MaxBatchTokens)
	c.max_sequence_tokens = C.uint32_t(e.MaxSequenceTokens)
	c.max_queue = C.uint32_t(e.MaxQueue)
	c.max_pending_responses = C.uint32_t(e.MaxPendingResponses)
	c.threads = C.uint32_t(e.Threads)
	c.prefix_reuse = flag(e.PrefixReuse)
	c.device = C.uint32_t(e.Device)
	c.refuse_stored_kernels = flag(e.RefuseStoredKernels)
	if e.ISA != "" {
		c.isa = isa
	}
	return c
}

// NewExecutor creates an executor and starts its threads; nil stands for the defaults. Close it when it is not needed
// any more.
func NewExecutor(engine *Engine, config *ExecutorConfig) (*Executor, error) {
	if config == nil {
		defaults := NewExecutorConfig()
		config = &defaults
	}
	isa := C.CString(config.ISA)
	defer C.free(unsafe.Pointer(isa))
	c := config.toC(isa)
	executor := &Executor{}
	err := call(func() C.trtllm_status { return C.trtllm_executor_create(engine.handle, &c, &executor.handle) })
	if err != nil {
		return nil, err
	}
	return executor, nil
}

// Close cancels what is unfinished and destroys the executor. Inside a callback it fails with StatusWouldDeadlock,
// and the executor goes on.
func (e *Executor) Close() error {
	return call(func() C.trtllm_status { return C.trtllm_executor_destroy(e.handle) })
}

// Shutdown accepts no more requests and cancels what is unfinished; streams go on to their last response.
func (e *Executor) Shutdown() error {
	return call(func() C.trtllm_status { return C.trtllm_executor_shutdown(e.handle) })
}

// Generate gives the whole text of a request's first sequence. When ctx ends, the request is cancelled.
func (e *Executor) Generate(ctx context.Context, request *Request) (string, error) {
	stream, err := e.Stream(ctx, request)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var text strings.Builder
	for stream.Next() {
		if stream.Response().Sequence == 0 {
			text.WriteString(stream.Response().Text)
		}
	}
	return text.String(), stream.Err()
}

// Cancel asks to end a request early; one that has ended is no error.
func (e *Executor) Cancel(requestID uint64) error {
	return call(func() C.trtllm_status { return C.trtllm_executor_cancel(e.handle, C.uint64_t(requestID)) })
}

// CheckHealth gives the error that stopped the executor, if any did.
func (e *Executor) CheckHealth() error {
	return call(func() C.trtllm_status { return C.trtllm_executor_check_health(e.handle) })
}

// StatsJSON gives the executor's counts as a JSON object.
func (e *Executor) StatsJSON() (string, error) {
	return text(func(buffer *C.char, capacity C.size_t, length *C.size_t) C.trtllm_status {
		return C.trtllm_executor_stats_json(e.handle, buffer, capacity, length)
	})
}

// await waits for the next response of a request and takes it.
func (e *Executor) await(requestID uint64) (*Response, error) {
	var handle *C.trtllm_response
	err := call(func() C.trtllm_status {
		return C.trtllm_executor_await(e.handle, C.uint64_t(requestID), C.TRTLLM_WAIT_FOREVER, &handle)
	})
	if err != nil {
		return nil, err
	}
	defer C.trtllm_response_destroy(handle)
	return copyResponse(handle)
}
