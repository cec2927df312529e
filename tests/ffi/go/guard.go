package trtllm

// guard runs what C calls. A panic must not unwind through C: it is kept, and goes on in the goroutine that asks for
// the result.
type guard struct {
	err      error
	panicked any
}

func (g *guard) run(function func() error) {
	defer func() { g.panicked = recover() }()
	g.err = function()
}

func (g *guard) failed() bool {
	return g.err != nil || g.panicked != nil
}

func (g *guard) result() error {
	if g.panicked != nil {
		panic(g.panicked)
	}
	return g.err
}
