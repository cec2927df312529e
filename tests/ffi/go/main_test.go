package trtllm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	checkpoint = "../../models/tiny"
	prompt     = "Once upon a time"
	// What the README of the model tells as its greedy sample.
	opening = ", there was a little rabbit named Theo. One night, Theo was in bed with his orange scarf when he heard a " +
		"noise."
)

// enginePath is of an engine that all tests share, sharedEngine of that one, loaded.
var (
	enginePath   string
	sharedEngine *Engine
)

func TestMain(m *testing.M) {
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	folder, err := os.MkdirTemp("", "trtllm")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	enginePath = filepath.Join(folder, "model.engine")
	if err = Build(checkpoint, enginePath, nil); err != nil {
		return 0, err
	}
	if sharedEngine, err = LoadEngine(enginePath, nil); err != nil {
		return 0, err
	}
	defer sharedEngine.Close()
	return m.Run(), nil
}

// newExecutor gives an executor of the shared engine that is closed, and then held nothing any more, at the test's end.
func newExecutor(t *testing.T) *Executor {
	t.Helper()
	executor, err := NewExecutor(sharedEngine, nil)
	ok(t, err)
	t.Cleanup(func() { ok(t, executor.Close()) })
	return executor
}

// greedy is a request for exactly so many tokens behind the prompt.
func greedy(maxTokens uint32) *Request {
	sampling := NewSampling()
	sampling.MaxTokens = maxTokens
	sampling.IgnoreEOS = true
	return &Request{Text: prompt, Sampling: &sampling}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, condition bool, what ...any) {
	t.Helper()
	if !condition {
		t.Fatal(what...)
	}
}

// fails holds that err is the library's, of that status, and that its message names the culprit.
func fails(t *testing.T, err error, status Status, culprit string) {
	t.Helper()
	var failure *Error
	if !errors.As(err, &failure) || failure.Status != status || !errors.Is(err, status) {
		t.Fatalf("%v is not %v", err, status)
	}
	if !strings.Contains(err.Error(), culprit) {
		t.Fatalf("%q does not name %q", err, culprit)
	}
}

func background() context.Context {
	return context.Background()
}
