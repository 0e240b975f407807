#!/bin/bash
# Builds fuzz/fuzz_*.c with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, and runs each:
#   fuzz.sh [NAME...]     only fuzz/fuzz_NAME.c
# From the environment: FUZZ_SECONDS (600) for each. New inputs that reach new code are kept in build-fuzz/corpus/NAME;
# fuzz/corpus/NAME, the ones worth keeping for ever, is read too. A crash leaves its input in build-fuzz/.
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
clang=${CLANG:-clang}
command -v "$clang" >/dev/null || fail "the fuzzers need clang (on Debian: apt-get install clang), or CLANG=PROGRAM"
scripts/setup.sh
prefix=${LLAMA_PREFIX:-$(scripts/llama.sh)}
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for entry in fuzz/fuzz_*.c; do
        entry=${entry##*/fuzz_}
        names+=("${entry%.c}")
    done
fi
mkdir -p build-fuzz
for name in "${names[@]}"; do
    # What it fuzzes stands in its head; src/base goes with all. The words are patterns, so they are not quoted.
    # shellcheck disable=SC2046
    sources=($(sed -n 's@^ \* sources: @@; T; s@ *\*/@@; p' "fuzz/fuzz_$name.c"))
    # No sanitizer recovers: what UndefinedBehaviorSanitizer finds ends the run, too.
    step "building fuzz_$name" build-fuzz/log/build-$name.log "$clang" -std=c11 -D_GNU_SOURCE -O1 -g -Isrc -Iinclude \
        "-I$prefix/include" -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all "fuzz/fuzz_$name.c" \
        $(printf '%s\n' "${sources[@]}" src/base/*.c | sort -u) -o "build-fuzz/fuzz_$name" "-L$prefix/lib" \
        "-Wl,-rpath,$prefix/lib" -Wl,--as-needed -lggml-base -ljansson -lutf8proc -lpng -ljpeg -lm -lpthread
    mkdir -p "build-fuzz/corpus/$name" "fuzz/corpus/$name"
    dictionary=()
    [ ! -f "fuzz/$name.dict" ] || dictionary=("-dict=fuzz/$name.dict")
    step "fuzz_$name for ${FUZZ_SECONDS:-600} s" "build-fuzz/log/$name.log" "build-fuzz/fuzz_$name" -rss_limit_mb=2048 "${dictionary[@]}" \
        -max_len=8192 -timeout=20 "-max_total_time=${FUZZ_SECONDS:-600}" "-artifact_prefix=build-fuzz/$name-" \
        "build-fuzz/corpus/$name" "fuzz/corpus/$name"
    grep -E '^Done|cov:' "build-fuzz/log/$name.log" | tail -n 2 >&2
done
