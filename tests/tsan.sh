#!/usr/bin/env bash
# ThreadSanitizer on what threads share: the executor with its clients, the handle table. Needs a nightly compiler for
# x86-64 and compiles everything once more, into target/tsan; without one it says so and succeeds.
#
#   tests/tsan.sh [FILTER...]        # of the tests' names
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
if ! library=$(rustc +nightly --print target-libdir --target "$target" 2>/dev/null); then
  echo "skipped: ThreadSanitizer needs a nightly compiler"; exit 0
fi
if ! ls "$library"/*_rt.tsan.a >/dev/null 2>&1; then
  echo "skipped: this nightly compiler has no ThreadSanitizer for $target"; exit 0
fi

# The standard library itself is not instrumented.
export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.suppressions ${TSAN_OPTIONS:-}"
export CARGO_TARGET_DIR=target/tsan
[ $# -gt 0 ] || set -- executor::clients executor::endings capi::handle
cargo +nightly test --release --target "$target" --lib -- "$@"
