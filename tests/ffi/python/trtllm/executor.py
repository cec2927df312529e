"""Executors."""

from ctypes import byref, c_uint64, c_void_p, sizeof

from .delivery import Delivery, Listener
from .handle import Owner
from .native import ExecutorConfig, ExecutorStats, ResponseCallback, UserDataFree, call
from .request import Request
from .response import copy_response
from .status import Error, Status

# Python looks for Ctrl-C between two calls, so that none waits longer.
_WAIT_MS = 50
_NO_CALLBACK = ResponseCallback()
_NO_FREE = UserDataFree()


class Executor(Owner):
    """Serves many requests on one engine at once."""

    def __init__(self, engine, **config):
        """Starts its threads. `config` changes fields of `trtllm_executor_config`."""
        super().__init__("executor", "executor_create", engine._handle, byref(ExecutorConfig(**config)))

    def stream(self, prompt, sampling=None):
        """The responses of a request, or of a text and its sampling, as they come.

        It is submitted when the iteration begins, and cancelled when that is closed or left before its end. A failed
        sequence raises its error.
        """
        request_id = self._submit(_request(prompt, sampling))
        last = False
        try:
            while not last:
                response = self._await(request_id)
                last = response.last
                if response.error is not None:
                    raise response.error
                yield response
        finally:
            if not last:
                self._abandon(request_id)

    def generate(self, prompt, sampling=None):
        """The whole text of a request's first sequence."""
        return "".join(response.text for response in self.stream(prompt, sampling) if response.sequence == 0)

    def submit(self, request, callback):
        """Submits a request whose responses go to `callback`: in order, one at a time, on a thread of the library.

        The callback may submit and cancel. An exception of it cancels the request and ends its calls; the delivery
        hands it on.
        """
        listener = Listener(self._handle, callback)
        listener.attach(request._handle)
        try:
            return Delivery(self._submit(request), listener.done)
        finally:
            call("request_set_callback", request._handle, _NO_CALLBACK, None, _NO_FREE)

    def cancel(self, request_id):
        """Asks to end a request early; one that has ended is no error."""
        call("executor_cancel", self._handle, request_id)

    def check_health(self):
        """Raises what stopped the executor, if anything did."""
        call("executor_check_health", self._handle)

    @property
    def stats(self):
        stats = ExecutorStats()
        call("executor_get_stats", self._handle, sizeof(stats), byref(stats))
        return stats

    def close(self):
        """Cancels what is unfinished. Inside a callback it raises WOULD_DEADLOCK, and the executor goes on."""
        if self._destroy.alive:
            call("executor_shutdown", self._handle)
        super().close()

    def _submit(self, request):
        request_id = c_uint64()
        call("executor_submit", self._handle, request._handle, byref(request_id))
        return request_id.value

    def _await(self, request_id):
        handle = c_void_p()
        while not handle:
            try:
                call("executor_await", self._handle, request_id, _WAIT_MS, byref(handle))
            except Error as error:
                if error.status != Status.TIMEOUT:
                    raise
        try:
            return copy_response(handle)
        finally:
            call("response_destroy", handle)

    def _abandon(self, request_id):
        """Cancels a request and takes what is left of it, so that nothing stays behind in the executor."""
        try:
            self.cancel(request_id)
            while not self._await(request_id).last:
                pass
        except Error as error:
            # A closed executor has nothing left to take.
            if error.status not in (Status.INVALID_HANDLE, Status.NOT_FOUND, Status.SHUTTING_DOWN):
                raise


def _request(prompt, sampling):
    if isinstance(prompt, str):
        return Request(prompt, sampling=sampling)
    if sampling is not None:
        raise TypeError("a request has its own sampling")
    return prompt
