#!/usr/bin/env bash
# Miri on the handle table and the block manager: undefined behaviour, leaks and data races of what the tests execute.
# Needs a nightly compiler with the component `miri`; without it this says so and succeeds.
#
#   tests/miri.sh [FILTER...]        # of the tests' names
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
  echo "skipped: Miri is not there: rustup toolchain install nightly --component miri"; exit 0
fi
export CARGO_TARGET_DIR=target/miri
[ $# -gt 0 ] || set -- capi::handle kv::
cargo +nightly miri test --lib -- "$@"
