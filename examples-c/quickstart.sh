#!/usr/bin/env bash
# From a fresh clone to a generated story: builds the library, installs it to a local prefix, builds the C example
# through find_package, makes an engine from the bundled model and streams text. A second run only does what changed.
#
#   examples-c/quickstart.sh ["prompt"]
set -euo pipefail
cd "$(dirname "$0")/.."
. cmake/prerequisites.sh

need_cargo
need cmake cmake ninja ninja-build cc gcc c++ g++

root="$PWD/target/quickstart"
prefix="$root/prefix"
cmake -S cmake -B "$root/library" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$prefix" >/dev/null
cmake --build "$root/library"
cmake --install "$root/library" >/dev/null
cmake -S examples-c -B "$root/examples" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
cmake --build "$root/examples"

echo
"$root/examples/quickstart" tests/models/tiny "$root/tiny.engine" "${1:-Once upon a time}"
