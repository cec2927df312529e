package trtllm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestEngineInfo(t *testing.T) {
	info, err := sharedEngine.Info()
	ok(t, err)
	check(t, info.Architecture == "LlamaForCausalLM" && info.Layers == 4 && info.HiddenSize == 256, info)
	check(t, info.VocabSize == 1000 && info.MaxPositions == 1024 && info.BOSToken == 0, info)
	check(t, len(info.EOSTokens) == 2 && info.EOSTokens[0] == 1 && info.EOSTokens[1] == 2, info)
	check(t, info.Target == TargetCPU && info.Precision == PrecisionBF16, info)

	sampling, err := sharedEngine.Sampling()
	ok(t, err)
	check(t, sampling.Temperature == 0.7 && sampling.TopK == 40 && sampling.TopP == 0.95, sampling)

	text, err := sharedEngine.Inspect()
	ok(t, err)
	check(t, json.Valid([]byte(text)) && contains(text, "LlamaForCausalLM"), text)
}

func TestProgress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.engine")
	phases, before := map[string]bool{}, 0.0
	progress := func(phase string, fraction float64) error {
		phases[phase], before = true, fraction
		if phase == "" || fraction < 0 || fraction > 1 {
			return fmt.Errorf("%q at %v", phase, fraction)
		}
		return nil
	}
	ok(t, Build(checkpoint, path, &BuildConfig{Precision: PrecisionF32, Progress: progress}))
	check(t, len(phases) > 1 && before == 1, phases, before)

	engine, err := LoadEngine(path, &EngineConfig{LoadMode: LoadModeRead, Progress: progress})
	ok(t, err)
	info, err := engine.Info()
	check(t, err == nil && info.Precision == PrecisionF32, err, info)
	ok(t, engine.Close())
}

func TestProgressCancels(t *testing.T) {
	enough := errors.New("enough")
	path := filepath.Join(t.TempDir(), "model.engine")
	err := Build(checkpoint, path, &BuildConfig{Progress: func(string, float64) error { return enough }})
	check(t, err == enough, err)
	_, err = os.Stat(path)
	check(t, os.IsNotExist(err), "a cancelled build leaves nothing")

	defer func() { check(t, recover() == "hot", "the panic of a callback goes on behind the call") }()
	_, _ = LoadEngine(enginePath, &EngineConfig{Progress: func(string, float64) error { panic("hot") }})
}

func TestTokenizer(t *testing.T) {
	tokenizer, err := NewTokenizer(sharedEngine)
	ok(t, err)
	defer tokenizer.Close()
	const text = "Grüße, 世界 🦊\x00!"
	tokens, err := tokenizer.Encode(text, false)
	ok(t, err)
	decoded, err := tokenizer.Decode(tokens)
	check(t, err == nil && decoded == text, err, decoded)

	tokens, err = tokenizer.Encode(prompt, true)
	check(t, err == nil && tokens[0] == 0, "BOS is in front", err, tokens)
	_, err = tokenizer.Encode("\xc3(", false)
	fails(t, err, StatusInvalidArgument, "`text`: is not UTF-8")

	chat, err := tokenizer.ApplyChatTemplate([]Message{{"user", "What is 3 + 4?"}})
	check(t, err == nil && chat == "<|begin|><|user|>What is 3 + 4?<|end|><|assistant|>", err, chat)
}
