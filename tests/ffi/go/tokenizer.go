package trtllm

// #include <stdlib.h>
// #include <trtllm.h>
import "C"

import (
	"encoding/json"
	"errors"
	"unsafe"
)

// Tokenizer turns text into an engine's tokens and back.
type Tokenizer struct {
	handle *C.trtllm_tokenizer
}

// Message is a turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// NewTokenizer gives access to the tokenizer of an engine. Close it when it is not needed any more.
func NewTokenizer(engine *Engine) (*Tokenizer, error) {
	tokenizer := &Tokenizer{}
	err := call(func() C.trtllm_status { return C.trtllm_tokenizer_create(engine.handle, &tokenizer.handle) })
	if err != nil {
		return nil, err
	}
	return tokenizer, nil
}

// Close destroys the tokenizer.
func (t *Tokenizer) Close() error {
	return call(func() C.trtllm_status { return C.trtllm_tokenizer_destroy(t.handle) })
}

// Encode turns text into tokens, with the special tokens of a prompt (such as BOS) or without.
func (t *Tokenizer) Encode(text string, specialTokens bool) ([]uint32, error) {
	bytes := C.CString(text)
	defer C.free(unsafe.Pointer(bytes))
	// A token has at least one byte of text, and few tokens are special.
	tokens := make([]uint32, len(text)+8)
	for {
		var count C.size_t
		err := call(func() C.trtllm_status {
			return C.trtllm_tokenizer_encode(t.handle, bytes, C.size_t(len(text)), flag(specialTokens),
				tokensToC(tokens), C.size_t(len(tokens)), &count)
		})
		if err == nil {
			return tokens[:count], nil
		}
		if !errors.Is(err, StatusBufferTooSmall) {
			return nil, err
		}
		tokens = make([]uint32, count)
	}
}

// Decode turns tokens into text, without special tokens.
func (t *Tokenizer) Decode(tokens []uint32) (string, error) {
	return text(func(buffer *C.char, capacity C.size_t, length *C.size_t) C.trtllm_status {
		return C.trtllm_tokenizer_decode(t.handle, tokensToC(tokens), C.size_t(len(tokens)), 1, buffer, capacity, length)
	})
}

// ApplyChatTemplate renders a conversation up to where the assistant's answer begins.
func (t *Tokenizer) ApplyChatTemplate(messages []Message) (string, error) {
	chat, err := json.Marshal(messages)
	if err != nil {
		return "", err
	}
	bytes := C.CBytes(chat)
	defer C.free(bytes)
	return text(func(buffer *C.char, capacity C.size_t, length *C.size_t) C.trtllm_status {
		return C.trtllm_tokenizer_apply_chat_template(t.handle, (*C.char)(bytes), C.size_t(len(chat)), 1,
			buffer, capacity, length)
	})
}

func tokensToC(tokens []uint32) *C.uint32_t {
	if len(tokens) == 0 {
		return nil
	}
	return (*C.uint32_t)(unsafe.Pointer(&tokens[0]))
}

// tokensFromC copies what the library lends.
func tokensFromC(tokens *C.uint32_t, count C.size_t) []uint32 {
	return append([]uint32(nil), unsafe.Slice((*uint32)(unsafe.Pointer(tokens)), int(count))...)
}
