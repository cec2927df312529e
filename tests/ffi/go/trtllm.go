// Package trtllm runs large language models through libtrtllm: from a Hugging Face checkpoint to streamed text.
//
//	err := trtllm.Build("checkpoint/", "model.engine", nil)
//	engine, err := trtllm.LoadEngine("model.engine", nil)
//	executor, err := trtllm.NewExecutor(engine, nil)
//	stream, err := executor.Stream(ctx, &trtllm.Request{Text: "Once upon a time"})
//	for stream.Next() {
//		fmt.Print(stream.Response().Text)
//	}
//	err = stream.Err()
//
// Everything may be used from several goroutines at once, except a Stream. What is closed refuses further calls with
// StatusInvalidHandle; it may be closed in any order, because the library keeps what is still needed.
//
// A handle of the library is a number in the shape of a pointer. That is no danger to the garbage collector: its type
// is incomplete in C, so cgo marks it as not in Go's heap, and it is never followed.
package trtllm

// #cgo pkg-config: trtllm
// #include <stdlib.h>
// #include <trtllm.h>
import "C"

import (
	"errors"
	"unsafe"
)

// CheckVersion tells whether the loaded library fits the headers that this package was compiled with.
func CheckVersion() error {
	return call(func() C.trtllm_status { return C.trtllm_check_version(C.TRTLLM_VERSION_MAJOR, C.TRTLLM_VERSION_MINOR) })
}

// Version is the version of the loaded library, e.g. 0.1.0.
func Version() string {
	return C.GoString(C.trtllm_version_string())
}

// text takes a text of unknown size from the library, also when it grows between two calls.
func text(read func(buffer *C.char, capacity C.size_t, length *C.size_t) C.trtllm_status) (string, error) {
	var length C.size_t
	err := call(func() C.trtllm_status { return read(nil, 0, &length) })
	for err == nil || errors.Is(err, StatusBufferTooSmall) {
		buffer := make([]byte, length+1)
		err = call(func() C.trtllm_status {
			return read((*C.char)(unsafe.Pointer(&buffer[0])), C.size_t(len(buffer)), &length)
		})
		if err == nil {
			return string(buffer[:length]), nil
		}
	}
	return "", err
}

// flag is how C says true and false.
func flag(set bool) C.int32_t {
	if set {
		return 1
	}
	return 0
}
