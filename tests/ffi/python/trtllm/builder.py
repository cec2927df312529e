"""Building engines."""

import os
from ctypes import byref

from .native import BuildConfig, call
from .progress import Reporter


def build(checkpoint, engine, progress=None, **config):
    """Builds an engine file from the folder of a Hugging Face checkpoint; it appears when it is complete.

    `config` changes fields of `trtllm_build_config`, as in `precision=Precision.F32`.
    """
    config = BuildConfig(**config)
    with Reporter(progress, config):
        call("build", os.fsencode(checkpoint), os.fsencode(engine), byref(config))
