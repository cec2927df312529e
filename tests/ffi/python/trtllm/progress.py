"""Progress on its way through C."""

from .native import ProgressCallback


class Reporter:
    """Puts `progress(phase, fraction)` into a config. An exception of it cancels the call, which then raises that one.

    Without a function it is still called: that is when Python looks for Ctrl-C.
    """

    def __init__(self, progress, config):
        self._progress = progress or (lambda phase, fraction: None)
        self._raised = None
        # The config keeps the function alive.
        config.progress = ProgressCallback(self._report)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if self._raised is not None:
            raise self._raised from None

    def _report(self, _user_data, phase, fraction):
        try:
            self._progress(phase.decode(), fraction)
            return 0
        except BaseException as error:  # KeyboardInterrupt too: none may leave into C
            self._raised = error
            return 1
