"""Engines."""

import enum
import os
from ctypes import byref, sizeof
from types import SimpleNamespace

from .handle import Owner
from .native import EngineConfig, EngineInfo, Sampling, call, text_of_unknown_size
from .progress import Reporter


class Precision(enum.IntEnum):
    """How an engine stores its numbers."""

    AUTO = 0
    F32 = 1
    BF16 = 2
    F16 = 3
    FP8 = 4
    INT8 = 5
    INT8_W8A8 = 6


class Target(enum.IntEnum):
    """The device class of an engine."""

    CPU = 1
    CUDA = 2


class LoadMode(enum.IntEnum):
    """How weights come into memory: mapped, or read, so that the file may then be changed or removed."""

    MAP = 0
    READ = 1


class Engine(Owner):
    """A model compiled for this machine."""

    def __init__(self, path, progress=None, **config):
        """Loads an engine file. `config` changes fields of `trtllm_engine_config`."""
        config = EngineConfig(**config)
        with Reporter(progress, config):
            super().__init__("engine", "engine_load", os.fsencode(path), byref(config))

    @property
    def info(self):
        """What is to know about the engine. It must not run into a `close` of another thread."""
        info = EngineInfo()
        call("engine_get_info", self._handle, sizeof(info), byref(info))
        copy = {name: getattr(info, name) for name, _ in info._fields_}
        copy["architecture"] = info.architecture.decode()
        copy["eos_tokens"] = info.eos_tokens[: copy.pop("eos_token_count")]
        return SimpleNamespace(**copy)

    @property
    def sampling(self):
        """The generation defaults of the checkpoint, to be changed and used."""
        sampling = Sampling()
        call("engine_get_sampling", self._handle, sizeof(sampling), byref(sampling))
        return sampling

    def inspect(self):
        """Describes the engine as JSON."""
        return text_of_unknown_size("engine_inspect", self._handle)
