#!/usr/bin/env bash
# Fuzzes every target for so long, 60 seconds each if nothing is said. Stops at the first finding, which libFuzzer keeps in
# tests/fuzz/artifacts; inputs that reached new code stay in tests/fuzz/found for the next run.
#
#   tests/fuzz/run.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds="${1:-60}"

cargo +nightly --version >/dev/null 2>&1 || { echo "needs a nightly compiler: rustup toolchain install nightly"; exit 1; }
cargo +nightly fuzz --version >/dev/null 2>&1 || { echo "needs cargo-fuzz: cargo install cargo-fuzz"; exit 1; }

for target in $(cargo +nightly fuzz list --fuzz-dir tests/fuzz); do
  echo "== $target, $seconds s"
  mkdir -p "tests/fuzz/found/$target"
  cargo +nightly fuzz run --fuzz-dir tests/fuzz "$target" "tests/fuzz/found/$target" "tests/fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048
done
