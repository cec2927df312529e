"""Tokenizers."""

import json
from ctypes import byref, c_size_t, c_uint32

from .handle import Owner
from .native import call, text_of_unknown_size, tokens_to_c
from .status import Error, Status


class Tokenizer(Owner):
    """Turns text into an engine's tokens and back."""

    def __init__(self, engine):
        super().__init__("tokenizer", "tokenizer_create", engine._handle)

    def encode(self, text, special_tokens=False):
        """With the special tokens of a prompt (such as BOS) or without."""
        text = text.encode()
        # A token has at least one byte of text, and few tokens are special.
        count = c_size_t(len(text) + 8)
        while True:
            tokens = (c_uint32 * count.value)()
            try:
                arguments = text, len(text), special_tokens, tokens, len(tokens), byref(count)
                call("tokenizer_encode", self._handle, *arguments)
            except Error as error:
                if error.status != Status.BUFFER_TOO_SMALL:
                    raise
                continue
            return tokens[: count.value]

    def decode(self, tokens):
        """Leaves special tokens out."""
        return text_of_unknown_size("tokenizer_decode", self._handle, tokens_to_c(tokens), len(tokens), 1)

    def apply_chat_template(self, messages):
        """Renders a list of `{"role": ..., "content": ...}` up to where the assistant's answer begins."""
        messages = json.dumps(messages).encode()
        return text_of_unknown_size("tokenizer_apply_chat_template", self._handle, messages, len(messages), 1)
