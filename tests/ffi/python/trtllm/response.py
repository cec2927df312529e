"""Responses."""

import enum
from ctypes import byref, sizeof, string_at
from typing import List, NamedTuple, Optional, Tuple

from .native import RequestStats, ResponseView, call
from .status import Error

_NO_TOKEN = 0xFFFFFFFF


class FinishReason(enum.IntEnum):
    """Why a sequence ended."""

    NONE = 0
    EOS = 1
    STOP = 2
    LENGTH = 3
    CANCELLED = 4
    TIME_LIMIT = 5
    ERROR = 6


class Response(NamedTuple):
    """A piece of a request's output."""

    request_id: int
    # Which of the request's sequences this is of.
    sequence: int
    # New text: whole characters, possibly none.
    text: str
    tokens: List[int]
    # For each new token its (token, logprob) when they were asked for, and those of the most likely ones.
    logprobs: List[Tuple[int, float]]
    top_logprobs: List[List[Tuple[int, float]]]
    # Other than NONE in the last response of a sequence.
    finish_reason: FinishReason
    # What went wrong when the sequence failed.
    error: Optional[Error]
    # No further response of this request follows.
    last: bool
    # Complete in the last response.
    stats: RequestStats


def copy_response(handle):
    """Copies what a response of the library holds."""
    view, stats = ResponseView(), RequestStats()
    call("response_get", handle, sizeof(view), byref(view))
    call("response_get_stats", handle, sizeof(stats), byref(stats))
    return Response(
        request_id=view.request_id,
        sequence=view.sequence,
        text=string_at(view.text, view.text_length).decode(),
        tokens=view.tokens[: view.token_count],
        logprobs=_pairs(view.logprobs, view.token_count) if view.logprobs else [],
        top_logprobs=_rows(view),
        finish_reason=FinishReason(view.finish_reason),
        error=Error(view.status, view.error_message.decode()) if view.status else None,
        last=bool(view.last),
        stats=stats,
    )


def _pairs(entries, count):
    return [(entry.token, entry.logprob) for entry in entries[:count]]


def _rows(view):
    """A row for each token, without the entries that stand for no token."""
    width = view.top_logprobs_per_token
    if width == 0:
        return []
    every = _pairs(view.top_logprobs, view.token_count * width)
    rows = [every[i : i + width] for i in range(0, len(every), width)]
    return [[pair for pair in row if pair[0] != _NO_TOKEN] for row in rows]
