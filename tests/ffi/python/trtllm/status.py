"""What comes of calls and requests."""

import enum


class Status(enum.IntEnum):
    OK = 0
    INVALID_ARGUMENT = 100
    INVALID_HANDLE = 101
    INVALID_STATE = 102
    WOULD_DEADLOCK = 103
    BUFFER_TOO_SMALL = 104
    TIMEOUT = 105
    IO = 200
    NOT_FOUND = 201
    CORRUPT = 202
    UNSUPPORTED_VERSION = 203
    UNSUPPORTED_FORMAT = 204
    INVALID_CONFIG = 205
    INVALID_CHECKPOINT = 206
    INVALID_TOKENIZER = 207
    INVALID_TEMPLATE = 208
    INVALID_NETWORK = 300
    UNSUPPORTED = 301
    OUT_OF_MEMORY = 400
    BUDGET_EXCEEDED = 401
    QUEUE_FULL = 402
    REQUEST_TOO_LARGE = 403
    DEVICE_UNAVAILABLE = 404
    THREAD_FAILED = 405
    DEVICE_LOST = 406
    CANCELLED = 500
    TIME_LIMIT = 501
    NUMERIC = 502
    SHUTTING_DOWN = 503
    INTERNAL = 600
    PANIC = 601

    @classmethod
    def _missing_(cls, value):
        """A later version of the library may have more of them."""
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_, member._value_ = f"UNKNOWN_{value}", value
        return member


class Error(Exception):
    """A failure of the library: its status, and a message that names what was wrong."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = Status(status)
