# Sourced by tests/packaging.sh: callers in Go, C# and Python of the installed library. Each has a quickstart, which must
# tell the story that the one in C tells, and tests of its own.

ffi="$work/ffi"

# installed COMMAND...: runs it where compilers and loader find the library; against hangs, not for long.
installed() {
  PKG_CONFIG_PATH="$prefix/lib/pkgconfig" LD_LIBRARY_PATH="$prefix/lib" timeout 300 "$@"
}

# same_story COMMAND...: a quickstart, whose arguments follow.
same_story() {
  head -n -2 "$work/quickstart.txt" >"$ffi/story.expected" && rm -f "$ffi/quickstart.engine" &&
    installed "$@" tests/models/tiny "$ffi/quickstart.engine" "$story" >"$ffi/story.found" &&
    diff "$ffi/story.expected" "$ffi/story.found"
}

# Every constant of the headers and its value.
constants() {
  sed -nE 's/^ +(TRTLLM_[A-Z0-9_]+) = ([0-9]+),$/\1 \2/p' "$prefix"/include/trtllm/*.h
}

# What the headers declare: size and offsets of every struct as a C compiler sees them, and the constants. The program is
# generated from the headers by the test of the binary interface.
declarations() {
  local source=target/tmp/abi/layout-gcc/layout.c
  [ -e "$source" ] || cargo test --release --locked --quiet --test abi c_and_rust >&2 || return 1
  cc -std=c11 -I"$prefix/include" "$source" -o "$ffi/layout" -L"$prefix/lib" -ltrtllm || return 1
  installed "$ffi/layout" | awk '/^trtllm_/ { print $1, $2 }' && constants
}

# same_declarations COMMAND...: prints them in the same words, in whatever order.
same_declarations() {
  declarations >"$ffi/declarations" && sort "$ffi/declarations" >"$ffi/declarations.expected" &&
    installed "$@" >"$ffi/declarations" && sort "$ffi/declarations" >"$ffi/declarations.found" &&
    diff "$ffi/declarations.expected" "$ffi/declarations.found"
}

# go_command ARGUMENTS...: in the module's folder, with a cache of its own and no way to download anything.
go_command() {
  (cd tests/ffi/go && GOENV=off GOPATH="$ffi/gopath" GOCACHE="$ffi/go" GOPROXY=off GOTOOLCHAIN=local GOFLAGS= GOWORK=off installed go "$@")
}

go_format() {
  local unformatted
  unformatted=$(gofmt -l tests/ffi/go) && [ -z "$unformatted" ] || { echo "gofmt would change $unformatted"; return 1; }
  go_command vet ./...
}

# Go takes layouts and values from the headers themselves; that it has all constants is left to see.
go_constants() {
  constants | cut -d ' ' -f 1 | sort >"$ffi/constants.expected" &&
    grep -ohE ' = C\.TRTLLM_[A-Z0-9_]+' tests/ffi/go/*.go | sed 's/ = C\.//' | sort >"$ffi/constants.found" &&
    diff "$ffi/constants.expected" "$ffi/constants.found"
}

go_quickstart() {
  go_command build -o "$ffi/quickstart" ./quickstart && same_story "$ffi/quickstart"
}

# The runtime looks at every pointer that C gets; from Go 1.21 on only a standard library of its own would.
go_tests() {
  local debug=""
  case $(go env GOVERSION) in go1.19* | go1.20*) debug="cgocheck=2" ;; esac
  GODEBUG="$debug" go_command test -count=1 .
}

csharp_build() {
  local compile="mcs -langversion:7 -warnaserror -lib:$ffi"
  $compile -target:library -out:"$ffi/Trtllm.dll" tests/ffi/csharp/Trtllm/*.cs &&
    $compile -r:Trtllm.dll -out:"$ffi/Quickstart.exe" tests/ffi/csharp/Quickstart.cs &&
    $compile -r:Trtllm.dll -r:System.Core -out:"$ffi/Tests.exe" tests/ffi/csharp/Tests/*.cs
}

csharp_tests() {
  rm -rf "$ffi/csharp" && mkdir "$ffi/csharp" && installed mono "$ffi/Tests.exe" tests/models/tiny "$ffi/csharp"
}

# Warnings are errors, that of an object which nobody closed too.
python_tests() {
  installed python3 -B -W error tests/ffi/python/test.py
}

mkdir -p "$ffi"
check "Go, format and vet" go_format
check "Go, constants" go_constants
check "Go, quickstart" go_quickstart
check "Go, tests" go_tests
check "C#, build" csharp_build
check "C#, quickstart" same_story mono "$ffi/Quickstart.exe"
check "C#, declarations" same_declarations mono "$ffi/Tests.exe" declarations
check "C#, tests" csharp_tests
check "Python, quickstart" same_story python3 -B tests/ffi/python/quickstart.py
check "Python, declarations" same_declarations python3 -B tests/ffi/python/declarations.py
check "Python, tests" python_tests
