package trtllm

// #include <trtllm.h>
import "C"

import "context"

// Stream is the responses of one request, as they come. One goroutine at a time may use it; one that waits in Next
// holds an OS thread, as one that reads a file does. For thousands of requests at once, Submit is the better way.
type Stream struct {
	executor  *Executor
	requestID uint64
	ctx       context.Context
	// ended is closed behind the last response, and lets go of ctx.
	ended    chan struct{}
	open     bool
	response *Response
	err      error
}

// Stream submits a request. When ctx ends, the request is cancelled: the stream goes on to its last response, and Err
// gives the error of ctx. Close the stream.
func (e *Executor) Stream(ctx context.Context, request *Request) (*Stream, error) {
	requestID, err := request.submit(e, func(*C.trtllm_request) error { return nil })
	if err != nil {
		return nil, err
	}
	stream := &Stream{executor: e, requestID: requestID, ctx: ctx, ended: make(chan struct{}), open: true}
	if ctx.Done() != nil {
		go stream.watch()
	}
	return stream, nil
}

// watch cancels the request when its context ends first. A cancel that fails finds an executor that is closed.
func (s *Stream) watch() {
	select {
	case <-s.ctx.Done():
		_ = s.executor.Cancel(s.requestID)
	case <-s.ended:
	}
}

// RequestID names the request, as its responses do.
func (s *Stream) RequestID() uint64 {
	return s.requestID
}

// Next waits for the next response. It gives false behind the last one, and when something failed: see Err.
func (s *Stream) Next() bool {
	s.response = nil
	if !s.open || s.err != nil {
		return false
	}
	response, err := s.executor.await(s.requestID)
	if err != nil {
		s.end(err)
		return false
	}
	if response.Last {
		s.end(s.interruption(response))
	}
	if response.Err != nil {
		s.err = response.Err
		return false
	}
	s.response = response
	return true
}

// interruption is the error of the context when the request ended for it.
func (s *Stream) interruption(last *Response) error {
	if last.FinishReason == FinishReasonCancelled {
		return s.ctx.Err()
	}
	return nil
}

func (s *Stream) end(err error) {
	s.err = err
	s.open = false
	close(s.ended)
}

// Response is what Next has waited for; nil when that was nothing.
func (s *Stream) Response() *Response {
	return s.response
}

// Err tells why Next gave false: nil at the end of the request, the error of the context that cancelled it, or an
// *Error.
func (s *Stream) Err() error {
	return s.err
}

// Cancel asks to end the request early; the stream goes on to its last response. Any goroutine may call it.
func (s *Stream) Cancel() error {
	return s.executor.Cancel(s.requestID)
}

// Close cancels the request unless it has ended, and takes what is left of it, so that nothing stays behind in the
// executor.
func (s *Stream) Close() {
	if !s.open {
		return
	}
	err := s.Cancel()
	for last := false; err == nil && !last; {
		var response *Response
		if response, err = s.executor.await(s.requestID); err == nil {
			last = response.Last
		}
	}
	s.end(s.err)
}
