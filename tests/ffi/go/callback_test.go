package trtllm

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"
)

// wait gives the result of a delivery, and fails the test when none comes.
func wait(t *testing.T, delivery *Delivery) error {
	t.Helper()
	select {
	case <-delivery.Done():
	case <-time.After(time.Minute):
		t.Fatal("the callback was never freed")
	}
	return delivery.Wait()
}

func TestCallback(t *testing.T) {
	executor := newExecutor(t)
	var text strings.Builder
	var ids []uint64
	lasts := 0
	delivery, err := executor.Submit(greedy(48), func(response *Response) error {
		text.WriteString(response.Text)
		ids = append(ids, response.RequestID)
		if response.Last {
			lasts++
		}
		return response.Err
	})
	ok(t, err)
	ok(t, wait(t, delivery))
	check(t, lasts == 1 && len(ids) > 1, lasts, ids)
	for _, id := range ids {
		check(t, id == delivery.RequestID, ids)
	}
	check(t, strings.HasPrefix(text.String(), opening), text.String())
}

// Inside a callback one may submit and cancel, and cannot wait for oneself.
func TestCallsInsideACallback(t *testing.T) {
	executor := newExecutor(t)
	inner := make(chan *Delivery, 1)
	var closing, submitting error
	outer, err := executor.Submit(greedy(4), func(response *Response) error {
		if !response.Last {
			return nil
		}
		closing = executor.Close()
		var delivery *Delivery
		delivery, submitting = executor.Submit(greedy(900), func(response *Response) error {
			return executor.Cancel(response.RequestID)
		})
		inner <- delivery
		return nil
	})
	ok(t, err)
	ok(t, wait(t, outer))
	fails(t, closing, StatusWouldDeadlock, "trtllm_executor_destroy")
	ok(t, submitting)
	ok(t, wait(t, <-inner))
	check(t, count(t, executor, `"cancelled":1`))
}

// Close waits for the callback that runs; none comes behind it.
func TestCloseWhileACallbackRuns(t *testing.T) {
	executor, err := NewExecutor(sharedEngine, nil)
	ok(t, err)
	inside := make(chan struct{}, 1000)
	var last *Response
	delivery, err := executor.Submit(greedy(900), func(response *Response) error {
		inside <- struct{}{}
		time.Sleep(20 * time.Millisecond)
		last = response
		return nil
	})
	ok(t, err)
	<-inside
	ok(t, executor.Close())
	ok(t, wait(t, delivery))
	check(t, last.FinishReason == FinishReasonCancelled, last)
}

// The library alone keeps a callback alive, and lets go of it at the end.
func TestCallbacksLiveAsLongAsTheyAreNeeded(t *testing.T) {
	const callbacks = 20
	executor := newExecutor(t)
	freed := make(chan struct{}, callbacks)
	var deliveries []*Delivery
	for i := 0; i < callbacks; i++ {
		text := &strings.Builder{}
		runtime.SetFinalizer(text, func(*strings.Builder) { freed <- struct{}{} })
		delivery, err := executor.Submit(greedy(48), func(response *Response) error {
			text.WriteString(response.Text)
			return nil
		})
		ok(t, err)
		deliveries = append(deliveries, delivery)
	}
	runtime.GC()
	for _, delivery := range deliveries {
		ok(t, wait(t, delivery))
	}
	for i := 0; i < callbacks; i++ {
		runtime.GC()
		select {
		case <-freed:
		case <-time.After(10 * time.Second):
			t.Fatal(callbacks-i, "callbacks are still held")
		}
	}
}

func TestErrorOfACallback(t *testing.T) {
	executor := newExecutor(t)
	enough := errors.New("enough")
	calls := 0
	delivery, err := executor.Submit(greedy(900), func(*Response) error {
		calls++
		return enough
	})
	ok(t, err)
	check(t, wait(t, delivery) == enough && calls == 1, calls)
	check(t, count(t, executor, `"cancelled":1`) && count(t, executor, `"requests":0`))
}

func TestPanicOfACallback(t *testing.T) {
	executor := newExecutor(t)
	delivery, err := executor.Submit(greedy(900), func(*Response) error { panic("hot") })
	ok(t, err)
	defer func() {
		check(t, recover() == "hot", "the panic goes on where one waits")
		check(t, count(t, executor, `"cancelled":1`))
	}()
	_ = wait(t, delivery)
}

func TestCallbackOfARefusedRequest(t *testing.T) {
	executor := newExecutor(t)
	request := greedy(8)
	request.Sampling.MaxTokens = 0
	_, err := executor.Submit(request, func(*Response) error { return nil })
	fails(t, err, StatusInvalidArgument, "max_tokens")
}
