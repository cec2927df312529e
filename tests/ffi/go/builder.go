package trtllm

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import "unsafe"

// Precision is how an engine stores its numbers.
type Precision int32

// The precisions; PrecisionAuto leaves it to the library.
const (
	PrecisionAuto     Precision = C.TRTLLM_PRECISION_AUTO
	PrecisionF32      Precision = C.TRTLLM_PRECISION_F32
	PrecisionBF16     Precision = C.TRTLLM_PRECISION_BF16
	PrecisionF16      Precision = C.TRTLLM_PRECISION_F16
	PrecisionFP8      Precision = C.TRTLLM_PRECISION_FP8
	PrecisionINT8     Precision = C.TRTLLM_PRECISION_INT8
	PrecisionINT8W8A8 Precision = C.TRTLLM_PRECISION_INT8_W8A8
)

// Target is the device class of an engine.
type Target int32

// The targets.
const (
	TargetCPU  Target = C.TRTLLM_TARGET_CPU
	TargetCUDA Target = C.TRTLLM_TARGET_CUDA
)

// BuildConfig says how an engine is built; its zero value holds the defaults.
type BuildConfig struct {
	Progress      Progress
	Precision     Precision
	KVPrecision   Precision
	HeadPrecision Precision
	// Target 0 counts as TargetCPU.
	Target Target
	// MaxPositions is the most tokens of a request; 0: as the checkpoint says.
	MaxPositions uint32
	// DummyWeights takes the path of a lone config.json and makes random weights by the key Seed.
	DummyWeights bool
	Seed         uint64
	// Archs are compute capabilities, e.g. 80;90a; empty: that of the first GPU here.
	Archs string
	// Invariant keeps a request's bits independent of its neighbours on a GPU too.
	Invariant bool
	// DefaultTactics chooses kernels by rule and not by measurement.
	DefaultTactics bool
}

// Build makes the engine file enginePath from the folder checkpointPath; nil stands for the defaults. The file appears
// when it is complete.
func Build(checkpointPath, enginePath string, config *BuildConfig) error {
	if config == nil {
		config = &BuildConfig{}
	}
	checkpoint, engine, archs := C.CString(checkpointPath), C.CString(enginePath), C.CString(config.Archs)
	defer C.free(unsafe.Pointer(checkpoint))
	defer C.free(unsafe.Pointer(engine))
	defer C.free(unsafe.Pointer(archs))
	c, err := config.toC(archs)
	if err != nil {
		return err
	}
	return reported(config.Progress, func(progress C.uintptr_t) C.trtllm_status {
		return C.bridge_build(checkpoint, engine, &c, progress)
	})
}

func (b *BuildConfig) toC(archs *C.char) (c C.trtllm_build_config, err error) {
	err = call(func() C.trtllm_status { return C.trtllm_build_config_init(C.size_t(unsafe.Sizeof(c)), &c) })
	c.seed = C.uint64_t(b.Seed)
	c.max_positions = C.uint32_t(b.MaxPositions)
	c.precision = C.int32_t(b.Precision)
	c.kv_precision = C.int32_t(b.KVPrecision)
	c.head_precision = C.int32_t(b.HeadPrecision)
	c.dummy_weights = flag(b.DummyWeights)
	c.target = C.int32_t(b.Target)
	c.invariant = flag(b.Invariant)
	c.default_tactics = flag(b.DefaultTactics)
	if b.Archs != "" {
		c.archs = archs
	}
	return c, err
}
