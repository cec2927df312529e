"""Prints what the package says of the library's structs and constants, to be held against the headers."""

import ctypes
import enum
import re

import trtllm
from trtllm import native


def types(module, base):
    return [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]


for struct in types(native, native.Struct):
    if hasattr(struct, "c_name"):
        print(struct.c_name, ctypes.sizeof(struct))
        for name, _ in struct._fields_:
            print(f"{struct.c_name}.{name}", getattr(struct, name).offset)
for constants in types(trtllm, enum.IntEnum):
    noun = re.sub("([a-z])([A-Z])", r"\1_\2", constants.__name__).upper()
    for constant in constants:
        print(f"TRTLLM_{noun}_{constant.name}", constant.value)
