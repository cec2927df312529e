# Sourced by tests/run.sh: the library as its users get it. Installs to a fresh prefix, then builds and runs the consumer
# project, the examples and the tests of trtllm.hpp from there, also under sanitizers and valgrind.

work="$PWD/target/packaging"
prefix="$work/prefix"
engine="$work/tiny.engine"
story="Once upon a time"
warnings="-Wall -Wextra -Wpedantic -Wconversion -Werror"

# expect TEXT FILE: FILE has a line with TEXT in it.
expect() {
  grep -qF -- "$1" "$2" && return 0
  echo "no '$1' in:"
  cat "$2"
  return 1
}

install_library() {
  rm -rf "$prefix"
  cmake -S cmake -B "$work/library" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR=lib &&
    cmake --build "$work/library" && cmake --install "$work/library"
}

installed_files() {
  local noun
  {
    printf '%s\n' include/trtllm.h include/trtllm.hpp lib/cmake/trtllm/trtllmConfig.cmake lib/cmake/trtllm/trtllmConfigVersion.cmake \
      lib/libtrtllm.a lib/libtrtllm.so lib/libtrtllm.so.0.1 lib/libtrtllm.so.0.1.0 lib/pkgconfig/trtllm.pc
    for noun in builder engine executor network request response sampling status tokenizer version; do
      echo "include/trtllm/$noun.h"
      echo "include/trtllm/$noun.hpp"
    done
    printf 'include/trtllm/%s.hpp\n' callback handle progress span stream
  } | LC_ALL=C sort >"$work/files.expected"
  (cd "$prefix" && find . ! -type d | sed 's|^\./||' | LC_ALL=C sort) >"$work/files.found"
  diff "$work/files.expected" "$work/files.found" &&
    [ "$(readlink "$prefix/lib/libtrtllm.so")" = libtrtllm.so.0.1 ] &&
    [ "$(readlink "$prefix/lib/libtrtllm.so.0.1")" = libtrtllm.so.0.1.0 ]
}

# Nothing but glibc and libgcc_s, nothing newer than GLIBC_2.34, the SONAME that the links have, no debug sections.
shared_object() {
  local object="$prefix/lib/libtrtllm.so.0.1.0" others newest
  objdump -p "$object" >"$work/dynamic.txt"
  expect "SONAME               libtrtllm.so.0.1" "$work/dynamic.txt" || return 1
  others=$(awk '$1 == "NEEDED" { print $2 }' "$work/dynamic.txt" | grep -vxE 'lib(c|m|dl|pthread|rt|gcc_s)\.so\.[0-9]+|ld-linux-.*')
  [ -z "$others" ] || { echo "needs $others"; return 1; }
  newest=$(grep -oE 'GLIBC_[0-9.]+' "$work/dynamic.txt" | sed 's/GLIBC_//' | sort -V | tail -n 1)
  [ "$(printf '%s\n2.34\n' "$newest" | sort -V | tail -n 1)" = 2.34 ] || { echo "needs GLIBC_$newest"; return 1; }
  ! objdump -h "$object" | grep -F .debug_
}

# headers COMPILER C_COMPILER: each header alone, and twice.
headers() {
  local header standard
  for header in trtllm.h $(cd "$prefix/include" && echo trtllm/*.h); do
    printf '#include <%s>\n#include <%s>\nint trtllm_headers;\n' "$header" "$header" >"$work/header.c"
    "$2" -std=c11 $warnings -I"$prefix/include" -fsyntax-only "$work/header.c" || return 1
    "$1" -std=c++17 $warnings -I"$prefix/include" -fsyntax-only -x c++ "$work/header.c" || return 1
  done
  for header in trtllm.hpp $(cd "$prefix/include" && echo trtllm/*.hpp); do
    printf '#include <%s>\n#include <%s>\n' "$header" "$header" >"$work/header.cpp"
    for standard in c++17 c++20; do
      "$1" -std=$standard $warnings -I"$prefix/include" -fsyntax-only "$work/header.cpp" || return 1
    done
  done
}

# configure SOURCE NAME OPTION...: configures a project against the installed package, in a folder of that name.
configure() {
  local source="$1" name="$2"
  shift 2
  cmake -S "$source" -B "$work/$name" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" "$@"
}

consumer() {
  local program
  configure tests/consumer consumer && cmake --build "$work/consumer" || return 1
  for program in c_trtllm c_static cpp_trtllm cpp_static; do
    "$work/consumer/consumer_$program" || { echo "consumer_$program failed"; return 1; }
  done
  ! objdump -p "$work/consumer/consumer_c_static" | grep -F libtrtllm
}

# refuses VERSION: a project that asks for it is not configured, for that reason.
refuses() {
  rm -rf "$work/refused"
  ! configure tests/consumer refused -DWANTED_VERSION="$1" >"$work/refused.log" 2>&1 &&
    expect "requested version \"$1\"" "$work/refused.log"
}

other_versions() { refuses 0.2 && refuses 0.0 && refuses 1.0; }

pkg_config() {
  local flags
  flags=$(PKG_CONFIG_PATH="$prefix/lib/pkgconfig" pkg-config --cflags --libs 'trtllm >= 0.1') &&
    cc -std=c11 tests/consumer/consumer.c -o "$work/consumer_pkg_config" $flags -Wl,-rpath,"$prefix/lib" &&
    "$work/consumer_pkg_config"
}

# examples C_COMPILER CXX_COMPILER: builds all examples without a warning.
examples() {
  configure examples-c "examples-c-$1" -DCMAKE_C_COMPILER="$1" -DCMAKE_C_FLAGS=-Werror && cmake --build "$work/examples-c-$1" &&
    configure examples-cpp "examples-cpp-$1" -DCMAKE_CXX_COMPILER="$2" -DCMAKE_CXX_FLAGS=-Werror && cmake --build "$work/examples-cpp-$1"
}

# is_story FILE: the prompt and a text worth the name behind it.
is_story() {
  expect "$story" "$1" && [ "$(wc -c <"$1")" -gt 100 ] || { echo "too short:"; cat "$1"; return 1; }
}

quickstart() {
  "$work/examples-c-gcc/quickstart" tests/models/tiny "$engine" "$story" >"$work/quickstart.txt" &&
    is_story "$work/quickstart.txt" && expect " tokens, first after " "$work/quickstart.txt"
}

stream_cancel() {
  "$work/examples-c-gcc/stream_cancel" "$engine" "$story" " " >"$work/stream_cancel.txt" &&
    expect "ended: CANCELLED" "$work/stream_cancel.txt"
}

# As many blocks as prompts, and in each a text that goes on where its prompt ends.
many_requests() {
  "$work/examples-c-gcc/many_requests" "$engine" "$story" "In a small house near the village lived" "One morning," >"$work/many.txt" || return 1
  awk '/^--- / { prompt = $0; sub(/^--- /, "", prompt); sub(/ \([A-Z]+\)$/, "", prompt); next }
       prompt != "" { texts += index($0, prompt) == 1 && length($0) > length(prompt) + 20; prompt = "" }
       END { exit texts != 3 }' "$work/many.txt" || { cat "$work/many.txt"; return 1; }
}

# The answer has to be right: then template, history and tokens are. /reset brings the first answer back, word by word.
chat() {
  printf 'What is 3 + 4?\n/reset\nSay "a\\b" \t!\n/reset\nWhat is 3 + 4?\n/quit\nWhat is 1 + 1?\n' |
    "$work/examples-cpp-gcc/chat" "$engine" --temperature 0 --max-tokens 40 >"$work/chat.txt" 2>"$work/chat.err" || return 1
  [ ! -s "$work/chat.err" ] || { cat "$work/chat.err"; return 1; }
  [ "$(grep -cF '3 + 4 = 7' "$work/chat.txt")" -eq 2 ] && ! grep -qF '1 + 1' "$work/chat.txt" || { cat "$work/chat.txt"; return 1; }
}

# The second question can only be answered by who knows the story that was told before it.
chat_remembers() {
  local hero
  printf 'Tell me a story about a race.\nWho is the story about?\n' |
    "$work/examples-cpp-gcc/chat" "$engine" --temperature 0 >"$work/chat.txt" || return 1
  hero=$(sed -n '1s/.* named \([A-Z][a-z]*\).*/\1/p' "$work/chat.txt")
  [ -n "$hero" ] && sed 1d "$work/chat.txt" | grep -F "$hero" || { cat "$work/chat.txt"; return 1; }
}

chat_refuses() {
  ! "$work/examples-cpp-gcc/chat" "$engine" --temperature hot </dev/null 2>"$work/chat.err" && expect "not a number: hot" "$work/chat.err" &&
    ! "$work/examples-cpp-gcc/chat" no/such.engine </dev/null 2>"$work/chat.err" && expect "no/such.engine" "$work/chat.err"
}

bench() {
  "$work/examples-cpp-gcc/bench" latency throughput decode --engine "$engine" --input 16 --output 64 --repeat 2 --requests 6 \
    --concurrency 1,4 --json >"$work/bench.json" && cmake -DREPORT="$work/bench.json" -P tests/cpp/check_bench.cmake
}

# An engine of random weights is built where it shall be, measured, and gone afterwards; with --keep it stays.
bench_dummy() {
  local run="$work/examples-cpp-gcc/bench"
  local shape=(--dummy-weights tests/models/tiny/config.json --input 8 --output 4 --repeat 1 --concurrency 2)
  rm -rf "$work/tmp" && mkdir -p "$work/tmp" &&
    TMPDIR="$work/tmp" "$run" "${shape[@]}" >"$work/bench.txt" && [ -z "$(ls -A "$work/tmp")" ] &&
    expect "load to first token" "$work/bench.txt" && expect "throughput, 2 at once" "$work/bench.txt" &&
    "$run" latency "${shape[@]}" --precision f32 --out "$work/tmp/kept.engine" --keep >"$work/bench.txt" &&
    [ -s "$work/tmp/kept.engine" ] && expect "f32" "$work/bench.txt"
}

bench_refuses() {
  ! "$work/examples-cpp-gcc/bench" --engine "$engine" --input 0 2>"$work/bench.err" && expect "--input: must be at least 1" "$work/bench.err" &&
    ! "$work/examples-cpp-gcc/bench" --inputs 3 2>"$work/bench.err" && expect "unknown argument: --inputs" "$work/bench.err" &&
    ! "$work/examples-cpp-gcc/bench" decode --engine "$engine" --input 4 --output 8 --batch 1 --concurrency 2 2>"$work/bench.err" &&
    expect "no step had all 2 requests in decode" "$work/bench.err"
}

# What nobody fused is not coloured.
draw() {
  local run="$work/examples-cpp-gcc/draw"
  "$run" tests/models/tiny >"$work/network.dot" && "$run" tests/models/tiny --fused >"$work/fused.dot" &&
    expect 'label="layers.3"' "$work/network.dot" && ! grep -F 'fused:' "$work/network.dot" &&
    expect 'fused: gate, gate_activation, up, gated", fillcolor=' "$work/fused.dot" &&
    ! "$run" no/such/folder 2>"$work/draw.err" && expect "no/such/folder" "$work/draw.err" && ! "$run" tests/models/tiny --fuse 2>"$work/draw.err"
}

# A page for the engine, and one for a description whose names are markup: they are texts of the page and nothing else.
report() {
  local run="$work/examples-cpp-gcc/report"
  "$run" "$engine" tests/models/tiny -o "$work/report.html" &&
    python3 tests/cpp/report/check.py "$work/report.html" LlamaForCausalLM tiny.engine "q + k + v" add_rms_norm "slot 1" "bytes per token" \
      "As the checkpoint describes it" "rms_norm(hidden" &&
    "$run" tests/cpp/report/hostile.json >"$work/hostile.html" &&
    python3 tests/cpp/report/check.py "$work/hostile.html" "<script>alert(1)</script>" "<img src=x onerror=alert(1)>" "]]>" \
      "logits &amp; 😀" "<svg onload=alert(1)>" "<iframe src=//evil.example>" "gemv rows 16, tiles 2 3.75" "12.5" &&
    ! "$run" no/such.engine 2>"$work/report.err" && expect "no/such.engine" "$work/report.err" &&
    ! "$run" --page x 2>"$work/report.err" && expect "unknown argument, or one without its value: --page" "$work/report.err"
}

cpp_header() {
  configure tests/cpp cpp && cmake --build "$work/cpp" && rm -f "$work/header.engine" &&
    "$work/cpp/header" tests/models/tiny "$work/header.engine"
}

# The programs are instrumented, the library is as it is.
sanitized() {
  local flags="-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1"
  configure examples-c sanitized-c -DCMAKE_C_FLAGS="$flags" && cmake --build "$work/sanitized-c" &&
    configure tests/cpp sanitized-cpp -DCMAKE_CXX_FLAGS="$flags" && cmake --build "$work/sanitized-cpp" || return 1
  rm -f "$work/sanitized.engine"
  "$work/sanitized-c/quickstart" tests/models/tiny "$work/sanitized.engine" "$story" &&
    "$work/sanitized-c/stream_cancel" "$engine" "$story" " " &&
    "$work/sanitized-c/many_requests" "$engine" "$story" "What is 3 + 4?" &&
    rm -f "$work/sanitized.engine" && "$work/sanitized-cpp/header" tests/models/tiny "$work/sanitized.engine"
}

# Valgrind knows no AVX-512, and tells the library so.
memcheck() {
  valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite "$@"
}

valgrind_build_and_generate() {
  memcheck "$work/examples-c-gcc/quickstart" tests/models/tiny "$work/valgrind.engine" "$story"
}

valgrind_cancel() {
  memcheck "$work/examples-c-gcc/stream_cancel" "$engine" "$story" " "
}

# Generated headers have cbindgen's format.
formatted() {
  find include examples-c examples-cpp tests \( -name '*.c' -o -name '*.h' -o -name '*.cpp' -o -name '*.hpp' \) -print0 |
    grep -zv '^include/.*\.h$' | xargs -0 clang-format --dry-run --Werror
}

quickstart_command() {
  bash examples-c/quickstart.sh >"$work/command.txt" 2>"$work/command.err" || { cat "$work/command.err"; return 1; }
  is_story "$work/command.txt"
}

# The second run compiles nothing.
quickstart_again() {
  quickstart_command && ! grep -E 'Compiling|Building' "$work/command.txt" "$work/command.err"
}

mkdir -p "$work"
check "format of C and C++" formatted
check "install" install_library
# Without an installation nothing below says anything.
if [ -e "$prefix/lib/cmake/trtllm/trtllmConfig.cmake" ]; then
  check "installed files" installed_files
  check "shared object" shared_object
  check "headers alone and twice, gcc" headers g++ gcc
  check "headers alone and twice, clang" headers clang++ clang
  check "consumer project, shared and static" consumer
  check "consumer project, wrong version" other_versions
  check "pkg-config" pkg_config
  check "examples, gcc" examples gcc g++
  check "examples, clang" examples clang clang++
  check "example quickstart" quickstart
  check "example stream_cancel" stream_cancel
  check "example many_requests" many_requests
  check "example chat" chat
  check "example chat, history" chat_remembers
  check "example chat, wrong arguments" chat_refuses
  check "bench" bench
  check "bench, random weights" bench_dummy
  check "bench, wrong arguments" bench_refuses
  check "example draw" draw
  check "example report" report
  check "trtllm.hpp" cpp_header
  . tests/ffi/run.sh
  check "sanitizers" sanitized
  check "valgrind, build and generate" valgrind_build_and_generate
  check "valgrind, callback and cancel" valgrind_cancel
  check "quickstart.sh" quickstart_command
  check "quickstart.sh again" quickstart_again
fi
