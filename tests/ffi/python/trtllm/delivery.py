"""Callbacks on their way through C."""

import itertools
from concurrent.futures import Future
from typing import NamedTuple

from .native import ResponseCallback, UserDataFree, call
from .response import copy_response
from .status import Error


class Delivery(NamedTuple):
    """A request whose responses go to a callback."""

    request_id: int
    # Done when no callback can come any more; its result() raises what the callback raised.
    done: Future


class Listener:
    """A callback that the library holds, by number, until no response can come any more."""

    _held = {}
    _numbers = itertools.count(1)

    def __init__(self, executor_handle, callback):
        self._executor_handle = executor_handle
        self._callback = callback
        self._raised = None
        self.done = Future()

    def attach(self, request_handle):
        number = next(Listener._numbers)
        Listener._held[number] = self
        try:
            call("request_set_callback", request_handle, _on_response, number, _on_free)
        except Error:
            del Listener._held[number]
            raise

    def _respond(self, handle):
        if self._raised is not None:
            return
        response = copy_response(handle)
        try:
            self._callback(response)
        except BaseException as error:  # none may leave into C
            self._raised = error
            try:
                call("executor_cancel", self._executor_handle, response.request_id)
            except Error:
                pass  # then the request ends by itself and is not listened to

    def _end(self):
        if self._raised is not None:
            self.done.set_exception(self._raised)
        else:
            self.done.set_result(None)


# At module level, so that they live as long as the library may call them.
@ResponseCallback
def _on_response(number, response):
    Listener._held[number]._respond(response)


@UserDataFree
def _on_free(number):
    Listener._held.pop(number)._end()
