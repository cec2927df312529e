// Command quickstart goes from a Hugging Face checkpoint to streamed text.
//
//	quickstart CHECKPOINT ENGINE PROMPT
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"trtllm"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: quickstart CHECKPOINT ENGINE PROMPT")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(checkpoint, path, prompt string) error {
	if err := trtllm.CheckVersion(); err != nil {
		return err
	}
	if err := trtllm.Build(checkpoint, path, nil); err != nil {
		return err
	}
	engine, err := trtllm.LoadEngine(path, nil)
	if err != nil {
		return err
	}
	defer engine.Close()
	executor, err := trtllm.NewExecutor(engine, nil)
	if err != nil {
		return err
	}
	defer executor.Close()
	return tell(engine, executor, prompt)
}

func tell(engine *trtllm.Engine, executor *trtllm.Executor, prompt string) error {
	sampling, err := engine.Sampling()
	if err != nil {
		return err
	}
	sampling.MaxTokens = 300
	stream, err := executor.Stream(context.Background(), &trtllm.Request{Text: prompt, Sampling: &sampling})
	if err != nil {
		return err
	}
	defer stream.Close()
	fmt.Print(prompt)
	for stream.Next() {
		fmt.Print(stream.Response().Text)
	}
	fmt.Println()
	return stream.Err()
}
