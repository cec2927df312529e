#!/usr/bin/env bash
# Tests that need a GPU. Without one each part is skipped, with the reason.
#
#   tests/gpu/run.sh unit        kernels against f64 references (python3 with torch, NVRTC)
#   tests/gpu/run.sh model       CUDA engines against the CPU backend, faults, what memory is taken, the driver's own tests
#   tests/gpu/run.sh sanitize    model tests under compute-sanitizer: memcheck, then racecheck
#   tests/gpu/run.sh bench [bf16|fp8|fp8kv|invariant|build ...]
#                                Llama-3.1-8B shape with random weights, the rows of README's table
#   tests/gpu/run.sh build       what `model`, `sanitize` and `bench` run, made on a machine without a GPU into target/gpu
#
# Carry target/gpu (under 48 MiB) with the sources to the machine with the GPU; where cargo is there, `build` runs by itself.
set -uo pipefail
cd "$(dirname "$0")/../.."
carried="target/gpu"
# There is a GPU wherever a test is started: one that cannot open it fails.
export TRTLLM_TEST_GPU=1

build() {
  set -e
  mkdir -p "$carried"
  local tests library
  # The library's own tests, then those of tests/cuda.rs.
  tests=$(cargo test --release --locked --lib --test cuda --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
  cargo build --release --locked
  library=libtrtllm.so.0.1
  strip -o "$carried/lib" "$(sed -n 1p <<<"$tests")"
  strip -o "$carried/cuda" "$(sed -n 2p <<<"$tests")"
  strip -o "$carried/$library" target/release/libtrtllm.so
  ln -sf "$library" "$carried/libtrtllm.so"
  g++ -O2 -std=c++17 -Iinclude examples-cpp/bench/*.cpp -o "$carried/bench" -L"$carried" -l:$library -Wl,-rpath,'$ORIGIN' -pthread
  du -sh "$carried"
}

need_gpu() {
  nvidia-smi -L 2>/dev/null | grep -q GPU && return 0
  echo "skipped: there is no NVIDIA GPU here"
  exit 0
}

need_build() {
  [ -x "$carried/cuda" ] && [ -x "$carried/lib" ] && [ -x "$carried/bench" ] && return 0
  command -v cargo >/dev/null || { echo "skipped: $carried is not there, and no cargo to make it (run '$0 build' elsewhere)"; exit 0; }
  (build) || exit 1
}

unit() {
  python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || { echo "skipped: python3 has no torch with CUDA"; exit 0; }
  local failed=0 file
  for file in tests/gpu/unit/*.py; do
    echo "== $file"
    timeout 120 python3 "$file" | { grep -v '^ok ' || true; }
    [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
  done
  exit $failed
}

model() {
  local failed=0
  timeout 330 "$carried/cuda" --nocapture || failed=1
  echo "== the driver's own tests"
  timeout 80 "$carried/lib" --nocapture backend::cuda::real || failed=1
  echo "== what the device gives up, with nothing else on it"
  timeout 60 "$carried/cuda" --nocapture --ignored --test-threads 1 memory:: || failed=1
  exit $failed
}

sanitize() {
  command -v compute-sanitizer >/dev/null || { echo "skipped: compute-sanitizer is not installed"; exit 0; }
  local failed=0
  memcheck || failed=1
  racecheck || failed=1
  exit $failed
}

# sanitizer TOOL SECONDS ARGUMENTS...: its report goes to target/gpu/TOOL.log. 2: it does not work on this device.
sanitizer() {
  local tool="$1" seconds="$2" report="$carried/$1.log" status
  shift 2
  timeout "$seconds" compute-sanitizer --tool "$tool" --error-exitcode 1 --print-limit 1000 "$@" >"$report" 2>&1
  status=$?
  if grep -qiE 'device not supported|unable to (initialize|find)|not supported on' "$report"; then
    echo "skipped: $tool: $(grep -iE -m 1 'not supported|unable to' "$report")"
    return 2
  fi
  grep -E '^test |^test result|ERROR SUMMARY|RACECHECK SUMMARY' "$report"
  [ $status -ne 124 ] || echo "$tool was not through after $seconds seconds"
  return $((status != 0))
}

memcheck() {
  echo "== memcheck"
  sanitizer memcheck 230 "$carried/cuda" --test-threads 1 the_tiny_model long_chunks
  case $? in 1) grep -A 12 -m 5 -E 'Invalid|Error|panicked' "$carried/memcheck.log"; return 1 ;; esac
}

# Kernels whose hazards are accepted, as racecheck does not model what orders them.
#   prefill   attention/prefill_wgmma.cu: keys and values are copied to stages of shared memory that are handed over, full or
#             empty, by an mbarrier (H200, driver 580: 32 warnings that a stage is read and later written anew, no error)
accepted="prefill"

racecheck() {
  echo "== racecheck"
  local kernels kernel unknown=0 status
  sanitizer racecheck 230 "$carried/cuda" --test-threads 1 a_few_steps
  status=$?
  [ $status -ne 2 ] || return 0
  kernels=$(grep -oE 'access at [A-Za-z_][A-Za-z0-9_]*' "$carried/racecheck.log" | awk '{ print $NF }' | sort | uniq -c)
  while read -r count kernel; do
    [ -n "$kernel" ] || continue
    case " $accepted " in
      *" $kernel "*) echo "accepted: $count reports about $kernel" ;;
      *) echo "$count reports about $kernel:"; grep -m 1 -A 6 " $kernel" "$carried/racecheck.log"; unknown=1 ;;
    esac
  done <<<"$kernels"
  # A failure without a report is one of the test itself.
  [ $status -eq 0 ] || [ -n "$kernels" ] || { tail -30 "$carried/racecheck.log"; return 1; }
  [ $status -ne 124 ] && grep -q '^test result: ok' "$carried/racecheck.log" && [ $unknown -eq 0 ]
}

# One line for each figure of a run of the bench.
measure() {
  echo "== bench $*"
  "$carried/bench" "$@" | grep -E 'build|load|first token|per token|output|at once|step'
}

shape="examples-cpp/bench/llama-3.1-8b.json"
engine="${TMPDIR:-/tmp}/trtllm-bench.engine"
small="--batch 64 --batch-tokens 2048 --kv-tokens 65536"
large="--batch 1024 --batch-tokens 8192 --kv-tokens 600000"

# bench_precision PART: README's rows of one precision, on an engine that is built for them, and some again without cuBLASLt. The
# decode rows have contexts of 128 to 400 tokens.
bench_precision() {
  local precision="$1"
  [ "$1" = fp8kv ] && precision="fp8 --kv-precision fp8 --head-precision fp8"
  measure latency --dummy-weights "$shape" --target cuda --precision $precision --input 128 --output 272 --repeat 3 --warmup 1 \
    $small --out "$engine" --keep
  measure decode --engine "$engine" --input 128 --output 272 --concurrency 1,64 --repeat 3 --warmup 1 $small
  measure latency --engine "$engine" --input 2048 --output 4 --repeat 3 --warmup 1 $small
  if [ "$1" = bf16 ]; then
    measure throughput --engine "$engine" --input 512 --output 512 --requests 512 --concurrency 512 --repeat 1 --warmup 0 $large
  else
    measure throughput --engine "$engine" --input 128 --output 128 --requests 1024 --concurrency 1024 --repeat 3 --warmup 0 $large
    measure throughput --engine "$engine" --input 2048 --output 128 --requests 256 --concurrency 256 --repeat 2 --warmup 0 $large
  fi
  if [ "$1" != fp8kv ]; then
    echo "== without cuBLASLt"
    measure_own latency --engine "$engine" --input 128 --output 4 --repeat 3 --warmup 1 $small
    measure_own decode --engine "$engine" --input 128 --output 272 --concurrency 64 --repeat 1 --warmup 1 $small
    measure_own latency --engine "$engine" --input 2048 --output 4 --repeat 3 --warmup 1 $small
  fi
  if [ "$1" = fp8 ]; then
    measure_own throughput --engine "$engine" --input 128 --output 128 --requests 1024 --concurrency 1024 --repeat 1 --warmup 0 $large
    measure_own throughput --engine "$engine" --input 2048 --output 128 --requests 256 --concurrency 256 --repeat 1 --warmup 0 $large
  fi
  rm -f "$engine"
}

measure_own() {
  TRTLLM_CUBLASLT=none measure "$@"
}

bench_invariant() {
  measure latency --dummy-weights "$shape" --target cuda --precision bf16 --invariant --input 128 --output 50 --repeat 2 --warmup 1 $small
}

# An fp8 engine from a bf16 checkpoint on disk, first with empty caches and then with those of the first.
bench_build() {
  local folder="${TMPDIR:-/tmp}/trtllm-bench" time
  mkdir -p "$folder/checkpoint" "$folder/cache"
  python3 tests/gpu/checkpoint.py "$shape" "$folder/checkpoint" || return 1
  for time in first second; do
    echo "== $time build"
    TRTLLM_CACHE="$folder/cache" measure latency --checkpoint "$folder/checkpoint" --target cuda --precision fp8 --input 8 --output 2 \
      --repeat 1 --warmup 0 $small --out "$engine"
  done
  rm -rf "$folder"
}

bench() {
  local part
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  for part in ${*:-bf16 fp8 fp8kv invariant build}; do
    case "$part" in
      bf16 | fp8 | fp8kv) bench_precision "$part" ;;
      invariant) bench_invariant ;;
      build) bench_build ;;
      *) echo "bench has no part '$part': bf16, fp8, fp8kv, invariant, build"; exit 2 ;;
    esac
  done
}

case "${1:-}" in
  build) build ;;
  unit) need_gpu && unit ;;
  model) need_gpu && need_build && model ;;
  sanitize) need_gpu && need_build && sanitize ;;
  bench) need_gpu && need_build && bench "${@:2}" ;;
  *) sed -n '2,11p' "$0" | sed 's/^# \{0,1\}//'; exit 2 ;;
esac
