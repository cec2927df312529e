"""Owners of the library's handles."""

import weakref
from ctypes import byref, c_void_p

from .native import call


class Owner:
    """Owns a handle: closed by hand, by `with`, by the garbage collector or at the interpreter's end, and exactly once.

    A closed one goes on naming its old handle, and the library refuses that with INVALID_HANDLE.
    """

    def __init__(self, noun, create, *arguments):
        handle = c_void_p()
        call(create, *arguments, byref(handle))
        self._handle = handle
        self._destroy = weakref.finalize(self, call, noun + "_destroy", handle)

    def close(self):
        self._destroy()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
