package trtllm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

func TestErrorNamesItsCulprit(t *testing.T) {
	_, err := LoadEngine("no/such.engine", nil)
	fails(t, err, StatusNotFound, "no/such.engine")
	check(t, !errors.Is(err, StatusCorrupt), "one status is not another")
	check(t, StatusNotFound.String() == "NOT_FOUND" && Status(7).String() == "UNKNOWN")
}

// A goroutine that comes back from a long call, as loading a damaged engine is, finds the one processor taken and
// goes on in another thread: it must still read the message of its own failure.
func TestErrorsOfManyGoroutines(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	folder := t.TempDir()
	damaged := filepath.Join(folder, "damaged.engine")
	damage(t, damaged)
	var group sync.WaitGroup
	for i := 0; i < 16; i++ {
		path := filepath.Join(folder, fmt.Sprintf("%d.engine", i))
		ok(t, os.Symlink(damaged, path))
		group.Add(1)
		go func() {
			defer group.Done()
			for round := 0; round < 8; round++ {
				_, err := LoadEngine(path, nil)
				if !errors.Is(err, StatusCorrupt) || !contains(err.Error(), path) {
					t.Errorf("%v is not about %s", err, path)
				}
			}
		}()
	}
	group.Wait()
}

// damage writes an engine with a weight that is wrong.
func damage(t *testing.T, path string) {
	t.Helper()
	bytes, err := os.ReadFile(enginePath)
	ok(t, err)
	bytes[len(bytes)/2] ^= 1
	ok(t, os.WriteFile(path, bytes, 0o600))
}

func TestVersion(t *testing.T) {
	ok(t, CheckVersion())
	check(t, contains(Version(), "."), Version())
}

// A closed object refuses every call, and others are none of its business.
func TestClosedHandles(t *testing.T) {
	engine, err := LoadEngine(enginePath, nil)
	ok(t, err)
	executor, err := NewExecutor(engine, nil)
	ok(t, err)
	tokenizer, err := NewTokenizer(engine)
	ok(t, err)
	ok(t, engine.Close())
	fails(t, engine.Close(), StatusInvalidHandle, "was destroyed")
	_, err = engine.Info()
	fails(t, err, StatusInvalidHandle, "`engine`")
	_, err = NewExecutor(engine, nil)
	fails(t, err, StatusInvalidHandle, "`engine`")

	text, err := executor.Generate(background(), greedy(4))
	check(t, err == nil && text != "", "what was made from an engine keeps it alive", err)
	ok(t, executor.Close())
	fails(t, executor.Close(), StatusInvalidHandle, "was destroyed")
	_, err = executor.Stream(background(), greedy(4))
	fails(t, err, StatusInvalidHandle, "`executor`")
	_, err = executor.Submit(greedy(4), func(*Response) error { return nil })
	fails(t, err, StatusInvalidHandle, "`executor`")
	fails(t, executor.Cancel(1), StatusInvalidHandle, "`executor`")

	ok(t, tokenizer.Close())
	_, err = tokenizer.Encode(prompt, true)
	fails(t, err, StatusInvalidHandle, "`tokenizer`")
}
