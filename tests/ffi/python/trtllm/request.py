"""Requests."""

import json
from ctypes import byref, c_uint8

from .handle import Owner
from .native import call, tokens_to_c


class Request(Owner):
    """A prompt, how to sample, what to return. It may be submitted several times.

    The prompt is one of `text`, `tokens` and `chat`, a list of `{"role": ..., "content": ...}`.
    """

    def __init__(
        self,
        text=None,
        *,
        tokens=None,
        chat=None,
        sampling=None,
        stop_strings=(),
        stop_tokens=(),
        logit_bias=None,
        stream=True,
        time_limit_ms=0,
        salt=b"",
    ):
        if sum(prompt is not None for prompt in (text, tokens, chat)) != 1:
            raise TypeError("a request has one of text, tokens and chat")
        super().__init__("request", "request_create")
        if text is not None:
            self._set_bytes("set_text", text)
        elif tokens is not None:
            self._set_tokens("set_tokens", tokens)
        else:
            self._set_bytes("set_chat", json.dumps(chat))
        if sampling is not None:
            call("request_set_sampling", self._handle, byref(sampling))
        for stop in stop_strings:
            self._set_bytes("add_stop_string", stop)
        for stop in stop_tokens:
            self._set_tokens("add_stop_tokens", stop)
        for token, bias in (logit_bias or {}).items():
            call("request_add_logit_bias", self._handle, token, bias)
        call("request_set_stream", self._handle, stream)
        call("request_set_time_limit", self._handle, time_limit_ms)
        call("request_set_salt", self._handle, (c_uint8 * len(salt))(*salt), len(salt))

    def _set_bytes(self, name, text):
        text = text.encode()
        call("request_" + name, self._handle, text, len(text))

    def _set_tokens(self, name, tokens):
        call("request_" + name, self._handle, tokens_to_c(tokens), len(tokens))
