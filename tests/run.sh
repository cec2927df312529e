#!/usr/bin/env bash
# Runs every test and closes with `N passed, N failed, N skipped`. Sets up what it needs; a second run is incremental.
#
#   tests/run.sh          everything (GPU tests have their own command)
set -uo pipefail
cd "$(dirname "$0")/.."
. cmake/prerequisites.sh

need_cargo || exit 1
need abidiff abigail-tools cmake cmake ninja ninja-build cc gcc c++ g++ clang clang clang-format clang-format valgrind valgrind nm binutils pkg-config pkg-config \
  go golang-go mcs mono-mcs mono mono-runtime python3 python3 || exit 1

log="target/tests.log"
mkdir -p target
: >"$log"
passed=0 failed=0 skipped=0

# check NAME COMMAND...: one test that is a command.
check() {
  local name="$1" output
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "ok      $name"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n%s\n' "$name" "$output"
  fi
  printf '== %s\n%s\n' "$name" "$output" >>"$log"
}

# cargo_tests ARGUMENTS...: adds up the result lines of cargo's test programs.
cargo_tests() {
  local run="target/tests.cargo.log" status p f s
  cargo test --release --locked --no-fail-fast "$@" 2>&1 | tee "$run" | grep -vE '^(test .* \.\.\. ok|running [0-9]+ tests?|)$'
  status=${PIPESTATUS[0]}
  cat "$run" >>"$log"
  read -r p f s < <(awk '/^test result:/ { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$run")
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  # A program that did not build or died before its result line counts as one failure.
  if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then failed=$((failed + 1)); fi
}

# The kernels are compiled by NVRTC, which needs no GPU: from PyPI into a private environment.
compiler_of_kernels() {
  local venv="target/nvrtc" packages
  if [ ! -e "$venv/ready" ]; then
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check nvidia-cuda-nvrtc==13.0.88 \
      nvidia-cuda-nvdisasm==13.5.37 && touch "$venv/ready" || return 1
  fi
  packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  export TRTLLM_NVRTC="$PWD/${packages#"$PWD/"}/nvidia/cu13/lib/libnvrtc.so.13" TRTLLM_NVDISASM="$PWD/${packages#"$PWD/"}/nvidia/cu13/bin/nvdisasm"
  export TRTLLM_CACHE="$PWD/target/cache"
}
compiler_of_kernels || echo "skipped: no NVRTC from PyPI: kernels are not compiled here"

echo "building"
cargo build --release --locked || { echo "the library does not build"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }

check "rustfmt" cargo fmt --check
check "clippy" cargo clippy --release --locked --all-targets --quiet -- -D warnings
check "without the compiler half" cargo check --release --locked --no-default-features --quiet
cargo_tests
. tests/packaging.sh

echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
