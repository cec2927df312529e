#!/usr/bin/env bash
# Fuzzes every target for so many seconds (default 60), prints a table, and fails on any finding: a crash, an input that
# takes over 10 seconds, memory over 2 GB. Inputs that reached new code stay in `found` for the next run; what was found
# lies in `findings` with the log of its worker.
#
#   tests/fuzz/run.sh [SECONDS]        # builds, with a nightly compiler and cargo-fuzz, then runs
#   tests/fuzz/run.sh build FOLDER     # makes a folder that runs on machines without a compiler:
#   FOLDER/run.sh [SECONDS]
#
#   SANITIZER=address|none   address, the default, also checks arithmetic for overflow; none is several times as fast
#   TARGETS="engine plan"    which ones (default: all)
#   WORKERS=N                processes at a time (default 1)
#   OUT=FOLDER               where `findings` and `table.txt` are written (default: beside this script)
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
sanitizer="${SANITIZER:-address}" workers="${WORKERS:-1}" out="${OUT:-$here}"
targets="${TARGETS:-$(ls "$here/corpus")}"

# Puts the program of one sanitizer into a folder.
build() {
  cargo +nightly fuzz --version >/dev/null 2>&1 || {
    echo "needs a nightly compiler and cargo-fuzz: rustup toolchain install nightly; cargo install cargo-fuzz"
    exit 1
  }
  local checks=(--debug-assertions)
  if [ "$2" = none ]; then checks=(); fi
  cargo +nightly fuzz build --fuzz-dir "$here" --target-dir "$here/target/$2" --sanitizer "$2" --release "${checks[@]}" \
    --codegen-units 16
  mkdir -p "$1"
  strip --strip-debug -o "$1/targets-$2" "$here/target/$2/x86_64-unknown-linux-gnu/release/targets"
}

if [ "${1:-}" = build ]; then
  folder="${2:?a folder}"
  for sanitizer in address none; do build "$folder" "$sanitizer"; done
  cp -r "$here/run.sh" "$here/corpus" "$here/words" "$folder"
  du -sh "$folder"
  exit 0
fi

seconds="${1:-60}"
programs="$here"
if [ -f "$here/Cargo.toml" ]; then
  programs="$here/target"
  build "$programs" "$sanitizer"
fi
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT
# The target writes its files there.
export TMPDIR="$logs"
mkdir -p "$out/findings"

# One worker of a target; its log ends with libFuzzer's counts.
work() {
  local target="$1" log="$2" words=json
  if [ "$target" = template ]; then words=jinja; fi
  TARGET="$target" "$programs/targets-$sanitizer" "$here/found/$target" "$here/corpus/$target" \
    -dict="$here/words/$words.dict" -artifact_prefix="$out/findings/$target-" -max_total_time="$seconds" \
    -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1 || cp "$log" "$out/findings/$target-$(basename "$log")"
}

# The line of a target in the table.
row() {
  awk -v target="$1" -v seconds="$seconds" -v findings="$2" '
    match($0, / cov: [0-9]+/) { reached = substr($0, RSTART + 6, RLENGTH - 6) + 0; if (reached > cov) cov = reached }
    /^stat::number_of_executed_units/ { executed += $2 }
    /^stat::slowest_unit_time_sec/ { if ($2 > slowest) slowest = $2 }
    /^stat::peak_rss_mb/ { if ($2 > peak) peak = $2 }
    END { printf "%-18s %12d %10d %9d %9d %10d %9d\n", target, executed, executed / seconds, cov, findings, slowest, peak }
  ' "$logs/$1".*.log
}

table="$out/table.txt"
{
  echo "sanitizer $sanitizer, $workers workers, $seconds s each"
  printf "%-18s %12s %10s %9s %9s %10s %9s\n" target executions per_second coverage findings slowest_s peak_mb
} | tee "$table"
for target in $targets; do
  mkdir -p "$here/found/$target"
  for worker in $(seq "$workers"); do work "$target" "$logs/$target.$worker.log" & done
  wait
  row "$target" "$(find "$out/findings" -name "$target-*.log" | wc -l)" | tee -a "$table"
done
[ -z "$(ls "$out/findings")" ] || { echo "findings: $out/findings"; exit 1; }
