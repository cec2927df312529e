"""Prints sizes and offsets of the structs as tests/capi/layout.c does."""

import ctypes

from trtllm import native

for struct in vars(native).values():
    if isinstance(struct, type) and issubclass(struct, native.Struct) and hasattr(struct, "c_name"):
        print(struct.c_name, ctypes.sizeof(struct))
        for name, _ in struct._fields_:
            print(f"{struct.c_name}.{name}", getattr(struct, name).offset)
