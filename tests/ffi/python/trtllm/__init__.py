"""libtrtllm from Python: this folder, ctypes, and nothing to build.

    import trtllm

    trtllm.build("checkpoint/", "model.engine")
    with trtllm.Engine("model.engine") as engine, trtllm.Executor(engine) as executor:
        for response in executor.stream("Once upon a time"):
            print(response.text, end="", flush=True)

Everything may be used by several threads at once, except a stream: while one waits in the library, the others run. The
library is found by the system's loader (LD_LIBRARY_PATH, ld.so.conf).
"""

from .builder import build
from .engine import Engine, LoadMode, Precision, Target
from .executor import Delivery, Executor
from .native import VERSION, Sampling, call, version
from .request import Request
from .response import FinishReason, Response
from .status import Error, Status
from .tokenizer import Tokenizer

__all__ = [
    "Delivery",
    "Engine",
    "Error",
    "Executor",
    "FinishReason",
    "LoadMode",
    "Precision",
    "Request",
    "Response",
    "Sampling",
    "Status",
    "Target",
    "Tokenizer",
    "build",
    "version",
]

# Refuses a library that does not fit.
call("check_version", *VERSION)
