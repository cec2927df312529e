package trtllm

// #include "bridge.h"
import "C"

import "runtime/cgo"

// Progress is told how far a build or a load is: the phase, and its done fraction from 0 to 1. An error cancels, and is
// what the call then returns.
type Progress func(phase string, fraction float64) error

// reported makes a call that reports its progress, by the handle of a guarded Progress; 0 stands for none.
func reported(progress Progress, function func(progress C.uintptr_t) C.trtllm_status) error {
	if progress == nil {
		return call(func() C.trtllm_status { return function(0) })
	}
	reporter := &reporter{progress: progress}
	handle := cgo.NewHandle(reporter)
	defer handle.Delete()
	err := call(func() C.trtllm_status { return function(C.uintptr_t(handle)) })
	if reporter.guard.failed() {
		return reporter.guard.result()
	}
	return err
}

type reporter struct {
	progress Progress
	guard    guard
}

//export goProgress
func goProgress(handle C.uintptr_t, phase *C.char, fraction C.double) C.int32_t {
	reporter := cgo.Handle(handle).Value().(*reporter)
	reporter.guard.run(func() error { return reporter.progress(C.GoString(phase), float64(fraction)) })
	return flag(reporter.guard.failed())
}
