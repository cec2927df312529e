package trtllm

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

func contains(text, part string) bool {
	return strings.Contains(text, part)
}

// count tells whether the executor counts so.
func count(t *testing.T, executor *Executor, what string) bool {
	t.Helper()
	stats, err := executor.StatsJSON()
	ok(t, err)
	return contains(strings.ReplaceAll(stats, " ", ""), what)
}

func TestPiecesMakeTheWhole(t *testing.T) {
	executor := newExecutor(t)
	stream, err := executor.Stream(background(), greedy(48))
	ok(t, err)
	defer stream.Close()
	var text strings.Builder
	var last Response
	pieces, tokens := 0, 0
	for stream.Next() {
		last = *stream.Response()
		check(t, last.RequestID == stream.RequestID())
		text.WriteString(last.Text)
		tokens += len(last.Tokens)
		pieces++
	}
	ok(t, stream.Err())
	check(t, last.Last && last.FinishReason == FinishReasonLength && last.FinishReason.String() == "LENGTH", last)
	check(t, pieces > 1 && tokens == 48 && last.Stats.GeneratedTokens == 48 && last.Stats.Total > 0, pieces, tokens, last)

	request := greedy(48)
	request.Whole = true
	whole, err := executor.Generate(background(), request)
	ok(t, err)
	check(t, whole == text.String() && strings.HasPrefix(whole, opening), whole)
}

func TestPrompts(t *testing.T) {
	executor := newExecutor(t)
	tokenizer, err := NewTokenizer(sharedEngine)
	ok(t, err)
	defer tokenizer.Close()
	request := greedy(12)
	request.Tokens, err = tokenizer.Encode(prompt, true)
	ok(t, err)
	fromTokens, err := executor.Generate(background(), request)
	ok(t, err)
	fromText, err := executor.Generate(background(), greedy(12))
	check(t, err == nil && fromTokens == fromText, err, fromTokens, fromText)

	sampling := NewSampling()
	request = &Request{Messages: []Message{{"user", "What is 3 + 4?"}}, Sampling: &sampling}
	answer, err := executor.Generate(background(), request)
	check(t, err == nil && contains(answer, "3 + 4 = 7"), err, answer)
}

func TestStopsBiasAndLogprobs(t *testing.T) {
	executor := newExecutor(t)
	request := greedy(48)
	request.StopStrings = []string{" rabbit"}
	text, err := executor.Generate(background(), request)
	check(t, err == nil && text == ", there was a little", err, text)

	request = greedy(1)
	request.Sampling.Logprobs = 3
	request.LogitBias = map[uint32]float32{7: 1000}
	request.StopTokens = [][]uint32{{7}}
	request.Salt = []byte("tenant")
	stream, err := executor.Stream(background(), request)
	ok(t, err)
	defer stream.Close()
	check(t, stream.Next(), stream.Err())
	response := stream.Response()
	check(t, len(response.Tokens) == 1 && response.Tokens[0] == 7, response)
	check(t, response.FinishReason == FinishReasonStop, response)
	check(t, len(response.Logprobs) == 1 && response.Logprobs[0].Token == 7 && response.Logprobs[0].Logprob <= 0, response)
	check(t, len(response.TopLogprobs) == 1 && len(response.TopLogprobs[0]) == 3, response)
}

func TestContextCancels(t *testing.T) {
	executor := newExecutor(t)
	ctx, cancel := context.WithCancel(background())
	stream, err := executor.Stream(ctx, greedy(900))
	ok(t, err)
	defer stream.Close()
	check(t, stream.Next(), stream.Err())
	cancel()
	var last *Response
	for stream.Next() {
		last = stream.Response()
	}
	check(t, last != nil && last.Last && last.FinishReason == FinishReasonCancelled, last)
	check(t, errors.Is(stream.Err(), context.Canceled), stream.Err())

	ctx, cancel = context.WithTimeout(background(), 5*time.Millisecond)
	defer cancel()
	_, err = executor.Generate(ctx, greedy(900))
	check(t, errors.Is(err, context.DeadlineExceeded), err)
	check(t, count(t, executor, `"cancelled":2`) && count(t, executor, `"requests":0`))
}

func TestCancel(t *testing.T) {
	executor := newExecutor(t)
	stream, err := executor.Stream(background(), greedy(900))
	ok(t, err)
	check(t, stream.Next(), stream.Err())
	ok(t, stream.Cancel())
	var last *Response
	for stream.Next() {
		last = stream.Response()
	}
	check(t, last != nil && last.FinishReason == FinishReasonCancelled, last)
	ok(t, stream.Err())
	stream.Close()
	fails(t, executor.Cancel(1<<30), StatusNotFound, "request 1073741824")
}

// A stream that is closed early leaves nothing behind in the executor.
func TestAbandonedStream(t *testing.T) {
	executor := newExecutor(t)
	stream, err := executor.Stream(background(), greedy(900))
	ok(t, err)
	check(t, stream.Next(), stream.Err())
	stream.Close()
	stream.Close()
	check(t, !stream.Next() && stream.Response() == nil)
	check(t, count(t, executor, `"cancelled":1`) && count(t, executor, `"requests":0`))
}

func TestManyStreamsAtOnce(t *testing.T) {
	executor := newExecutor(t)
	var group sync.WaitGroup
	for i := 0; i < 12; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			text, err := executor.Generate(background(), greedy(48))
			if err != nil || !strings.HasPrefix(text, opening) {
				t.Error(err, text)
			}
		}()
	}
	group.Wait()
}

func TestRefusedRequests(t *testing.T) {
	executor := newExecutor(t)
	request := greedy(8)
	request.Sampling.TopP = -1
	_, err := executor.Stream(background(), request)
	fails(t, err, StatusInvalidArgument, "top_p")
	_, err = executor.Stream(background(), &Request{Text: "\xc3("})
	fails(t, err, StatusInvalidArgument, "`text`: is not UTF-8")
	_, err = executor.Stream(background(), &Request{Tokens: []uint32{100000}})
	fails(t, err, StatusInvalidArgument, "100000")

	config := NewExecutorConfig()
	config.ISA = "abacus"
	_, err = NewExecutor(sharedEngine, &config)
	fails(t, err, StatusInvalidArgument, "abacus")
}

// A stream whose executor is closed ends, and does not wait for good.
func TestCloseUnderAStream(t *testing.T) {
	executor, err := NewExecutor(sharedEngine, nil)
	ok(t, err)
	stream, err := executor.Stream(background(), greedy(900))
	ok(t, err)
	check(t, stream.Next(), stream.Err())
	ok(t, executor.Shutdown())
	var last *Response
	for stream.Next() {
		last = stream.Response()
	}
	check(t, last != nil && last.FinishReason == FinishReasonCancelled, last)
	fails(t, executor.CheckHealth(), StatusShuttingDown, "")
	ok(t, executor.Close())
}
