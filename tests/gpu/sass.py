"""Checks a cubin's machine code: instructions that must be there, and instructions that must not.

    python3 tests/gpu/sass.py --nvdisasm PATH CUBIN --needs HGMMA,UTMALDG --forbids LDL,STL

A name stands for the instruction with any suffix: LDL also for LDL.64, HGMMA for HGMMA.64x256x16.F32. `UBLKCP|UTMALDG` is met by either.
"""

import argparse
import collections
import pathlib
import re
import subprocess
import sys
import tempfile

# An instruction's line begins with its address; a predicate may come first:   /*0130*/   @!P0 LDG.E.128 R4, ...
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)


def instructions(cubin, nvdisasm):
    """How often each instruction (without its suffixes) occurs in `cubin` (bytes)."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "code.cubin"
        path.write_bytes(cubin)
        listing = subprocess.run([nvdisasm, "-c", path], check=True, capture_output=True, text=True).stdout
    counts = collections.Counter(INSTRUCTION.findall(listing))
    if not counts:
        raise RuntimeError("no instructions were found")
    return counts


def problems(cubin, nvdisasm, needs=(), forbids=()):
    """What is wrong, a line each; empty when all is well."""
    counts = instructions(cubin, nvdisasm)
    missing = [f"{name} is missing" for name in needs if not any(counts[one] for one in name.split("|"))]
    return missing + [f"{name} occurs {counts[name]} times" for name in forbids if counts[name]]


def main():
    names = lambda text: [name for name in text.split(",") if name]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cubin", type=pathlib.Path)
    parser.add_argument("--nvdisasm", default="nvdisasm")
    parser.add_argument("--needs", type=names, default=[])
    parser.add_argument("--forbids", type=names, default=[])
    options = parser.parse_args()
    found = problems(options.cubin.read_bytes(), options.nvdisasm, options.needs, options.forbids)
    for line in found:
        print(f"{options.cubin}: {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
