package trtllm

// #include "bridge.h"
import "C"

import "runtime/cgo"

// Delivery is a request whose responses go to a callback.
type Delivery struct {
	RequestID uint64
	done      chan struct{}
	guard     guard
}

// Done is closed when no callback can come any more.
func (d *Delivery) Done() <-chan struct{} {
	return d.done
}

// Wait waits for Done and gives the error with which the callback cancelled the request. A panic of the callback goes
// on here.
func (d *Delivery) Wait() error {
	<-d.done
	return d.guard.result()
}

// listener is what the library holds for a request, by the number of its cgo.Handle.
type listener struct {
	executor *Executor
	callback func(*Response) error
	delivery *Delivery
}

// Submit submits a request whose responses go to callback: in order, one at a time per executor, on a thread of the
// library. The callback may submit and cancel; an error that it returns cancels the request and ends its calls.
func (e *Executor) Submit(request *Request, callback func(*Response) error) (*Delivery, error) {
	delivery := &Delivery{done: make(chan struct{})}
	handle := cgo.NewHandle(&listener{executor: e, callback: callback, delivery: delivery})
	taken := false
	requestID, err := request.submit(e, func(request *C.trtllm_request) error {
		err := call(func() C.trtllm_status { return C.bridge_set_callback(request, C.uintptr_t(handle)) })
		taken = err == nil
		return err
	})
	if !taken {
		handle.Delete()
	}
	if err != nil {
		return nil, err
	}
	delivery.RequestID = requestID
	return delivery, nil
}

//export goResponse
func goResponse(handle C.uintptr_t, response *C.trtllm_response) {
	listener := cgo.Handle(handle).Value().(*listener)
	guard := &listener.delivery.guard
	if guard.failed() {
		return
	}
	copied, err := copyResponse(response)
	if err != nil {
		guard.err = err
		return
	}
	guard.run(func() error { return listener.callback(copied) })
	if guard.failed() {
		// When even this fails, the request ends by itself and is not listened to.
		_ = listener.executor.Cancel(copied.RequestID)
	}
}

//export goFree
func goFree(handle C.uintptr_t) {
	listener := cgo.Handle(handle).Value().(*listener)
	cgo.Handle(handle).Delete()
	close(listener.delivery.done)
}
