package trtllm

// #include <trtllm.h>
import "C"

import "runtime"

// Status says what came of a call or of a request. It is an error, so that one asks for a kind of failure by
// errors.Is(err, trtllm.StatusQueueFull).
type Status int32

// The codes of the library; a later version may add some.
const (
	StatusOK                 Status = C.TRTLLM_STATUS_OK
	StatusInvalidArgument    Status = C.TRTLLM_STATUS_INVALID_ARGUMENT
	StatusInvalidHandle      Status = C.TRTLLM_STATUS_INVALID_HANDLE
	StatusInvalidState       Status = C.TRTLLM_STATUS_INVALID_STATE
	StatusWouldDeadlock      Status = C.TRTLLM_STATUS_WOULD_DEADLOCK
	StatusBufferTooSmall     Status = C.TRTLLM_STATUS_BUFFER_TOO_SMALL
	StatusTimeout            Status = C.TRTLLM_STATUS_TIMEOUT
	StatusIO                 Status = C.TRTLLM_STATUS_IO
	StatusNotFound           Status = C.TRTLLM_STATUS_NOT_FOUND
	StatusCorrupt            Status = C.TRTLLM_STATUS_CORRUPT
	StatusUnsupportedVersion Status = C.TRTLLM_STATUS_UNSUPPORTED_VERSION
	StatusUnsupportedFormat  Status = C.TRTLLM_STATUS_UNSUPPORTED_FORMAT
	StatusInvalidConfig      Status = C.TRTLLM_STATUS_INVALID_CONFIG
	StatusInvalidCheckpoint  Status = C.TRTLLM_STATUS_INVALID_CHECKPOINT
	StatusInvalidTokenizer   Status = C.TRTLLM_STATUS_INVALID_TOKENIZER
	StatusInvalidTemplate    Status = C.TRTLLM_STATUS_INVALID_TEMPLATE
	StatusInvalidNetwork     Status = C.TRTLLM_STATUS_INVALID_NETWORK
	StatusUnsupported        Status = C.TRTLLM_STATUS_UNSUPPORTED
	StatusOutOfMemory        Status = C.TRTLLM_STATUS_OUT_OF_MEMORY
	StatusBudgetExceeded     Status = C.TRTLLM_STATUS_BUDGET_EXCEEDED
	StatusQueueFull          Status = C.TRTLLM_STATUS_QUEUE_FULL
	StatusRequestTooLarge    Status = C.TRTLLM_STATUS_REQUEST_TOO_LARGE
	StatusDeviceUnavailable  Status = C.TRTLLM_STATUS_DEVICE_UNAVAILABLE
	StatusThreadFailed       Status = C.TRTLLM_STATUS_THREAD_FAILED
	StatusDeviceLost         Status = C.TRTLLM_STATUS_DEVICE_LOST
	StatusCancelled          Status = C.TRTLLM_STATUS_CANCELLED
	StatusTimeLimit          Status = C.TRTLLM_STATUS_TIME_LIMIT
	StatusNumeric            Status = C.TRTLLM_STATUS_NUMERIC
	StatusShuttingDown       Status = C.TRTLLM_STATUS_SHUTTING_DOWN
	StatusInternal           Status = C.TRTLLM_STATUS_INTERNAL
	StatusPanic              Status = C.TRTLLM_STATUS_PANIC
)

func (s Status) String() string {
	return C.GoString(C.trtllm_status_name(C.int32_t(s)))
}

func (s Status) Error() string {
	return s.String()
}

// Error is a failure of the library: its code, and a message that names what was wrong.
type Error struct {
	Status  Status
	Message string
}

func (e *Error) Error() string {
	return e.Message
}

// Unwrap gives the status, for errors.Is.
func (e *Error) Unwrap() error {
	return e.Status
}

// call makes one call of the library. Call and message of a failure belong to one OS thread, where the library keeps
// it.
func call(function func() C.trtllm_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	status := Status(function())
	if status == StatusOK {
		return nil
	}
	return &Error{Status: status, Message: C.GoString(C.trtllm_last_error_message())}
}
