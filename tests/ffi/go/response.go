package trtllm

// #include <trtllm.h>
import "C"

import (
	"math"
	"time"
	"unsafe"
)

// FinishReason says why a sequence ended.
type FinishReason int32

// The finish reasons; FinishReasonNone: the sequence goes on.
const (
	FinishReasonNone      FinishReason = C.TRTLLM_FINISH_REASON_NONE
	FinishReasonEOS       FinishReason = C.TRTLLM_FINISH_REASON_EOS
	FinishReasonStop      FinishReason = C.TRTLLM_FINISH_REASON_STOP
	FinishReasonLength    FinishReason = C.TRTLLM_FINISH_REASON_LENGTH
	FinishReasonCancelled FinishReason = C.TRTLLM_FINISH_REASON_CANCELLED
	FinishReasonTimeLimit FinishReason = C.TRTLLM_FINISH_REASON_TIME_LIMIT
	FinishReasonError     FinishReason = C.TRTLLM_FINISH_REASON_ERROR
)

func (f FinishReason) String() string {
	return C.GoString(C.trtllm_finish_reason_name(C.int32_t(f)))
}

// TokenLogprob is a token and the natural logarithm of its probability.
type TokenLogprob struct {
	Token   uint32
	Logprob float32
}

// Response is a piece of a request's output.
type Response struct {
	RequestID uint64
	// Sequence tells which of the request's N sequences this is of, counted from 0.
	Sequence uint32
	// Text and Tokens are new since the sequence's last response. Text holds whole characters, possibly none.
	Text   string
	Tokens []uint32
	// Logprobs has an entry for each new token when log-probabilities were asked for, TopLogprobs a row of the most
	// likely ones.
	Logprobs    []TokenLogprob
	TopLogprobs [][]TokenLogprob
	// FinishReason is other than FinishReasonNone in the last response of a sequence.
	FinishReason FinishReason
	// Err is an *Error when the sequence failed.
	Err error
	// Last: no further response of this request follows.
	Last bool
	// Stats are complete in the last response.
	Stats RequestStats
}

// RequestStats are times, counted from the submission, and counts of a request.
type RequestStats struct {
	PromptTokens    uint64
	CachedTokens    uint64
	GeneratedTokens uint64
	Preemptions     uint64
	Queued          time.Duration
	FirstToken      time.Duration
	Total           time.Duration
}

// copyResponse copies what a response of the library holds.
func copyResponse(handle *C.trtllm_response) (*Response, error) {
	var view C.trtllm_response_view
	err := call(func() C.trtllm_status { return C.trtllm_response_get(handle, C.size_t(unsafe.Sizeof(view)), &view) })
	if err != nil {
		return nil, err
	}
	var stats C.trtllm_request_stats
	err = call(func() C.trtllm_status {
		return C.trtllm_response_get_stats(handle, C.size_t(unsafe.Sizeof(stats)), &stats)
	})
	if err != nil {
		return nil, err
	}
	response := &Response{
		RequestID:    uint64(view.request_id),
		Sequence:     uint32(view.sequence),
		Text:         string(unsafe.Slice((*byte)(unsafe.Pointer(view.text)), int(view.text_length))),
		Tokens:       tokensFromC(view.tokens, view.token_count),
		FinishReason: FinishReason(view.finish_reason),
		Last:         view.last != 0,
		Stats:        statsFromC(&stats),
	}
	if view.logprobs != nil {
		response.Logprobs = logprobsFromC(view.logprobs, int(view.token_count))
	}
	response.TopLogprobs = topLogprobs(&view)
	if view.status != C.TRTLLM_STATUS_OK {
		response.Err = &Error{Status: Status(view.status), Message: C.GoString(view.error_message)}
	}
	return response, nil
}

func statsFromC(c *C.trtllm_request_stats) RequestStats {
	return RequestStats{
		PromptTokens:    uint64(c.prompt_tokens),
		CachedTokens:    uint64(c.cached_tokens),
		GeneratedTokens: uint64(c.generated_tokens),
		Preemptions:     uint64(c.preemptions),
		Queued:          time.Duration(c.queued_ns),
		FirstToken:      time.Duration(c.first_token_ns),
		Total:           time.Duration(c.total_ns),
	}
}

func logprobsFromC(entries *C.trtllm_token_logprob, count int) []TokenLogprob {
	logprobs := make([]TokenLogprob, 0, count)
	for _, entry := range unsafe.Slice(entries, count) {
		logprobs = append(logprobs, TokenLogprob{Token: uint32(entry.token), Logprob: float32(entry.logprob)})
	}
	return logprobs
}

// topLogprobs gives a row for each token, without the entries that stand for no token.
func topLogprobs(view *C.trtllm_response_view) [][]TokenLogprob {
	perToken := int(view.top_logprobs_per_token)
	if perToken == 0 {
		return nil
	}
	all := logprobsFromC(view.top_logprobs, int(view.token_count)*perToken)
	rows := make([][]TokenLogprob, 0, int(view.token_count))
	for len(all) > 0 {
		row := all[:perToken]
		for len(row) > 0 && row[len(row)-1].Token == math.MaxUint32 {
			row = row[:len(row)-1]
		}
		rows = append(rows, row)
		all = all[perToken:]
	}
	return rows
}
