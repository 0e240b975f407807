#!/bin/bash
# All tests, and at the end one line with the counts; exit 1 when one failed.
#   test.sh FOLDER              the tests, the tests under sanitizers, the checks against the originals
#   test.sh --sanitize FOLDER   only those under sanitizers
#   test.sh --checks FOLDER     only the checks
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"

what=all
case $1 in
--sanitize | --checks)
    what=${1#--}
    shift
    ;;
esac
folder=$1
results=$(mktemp)
trap 'rm -f "$results"' EXIT
start=$SECONDS

# run_ctest FOLDER LABEL: the step's own line tells the time; a failed test is shown with the end of its output.
run_ctest() {
    local log=$1/log/ctest.log failed=
    if ! LOWBEAM_TAIL=0 step "tests${2:+ under $2}" "$log" \
        ctest --test-dir "$1" --verbose --timeout 1800 --parallel "$(n_jobs 700000)" --no-tests=error; then
        ctest --test-dir "$1" --rerun-failed --output-on-failure --timeout 1800 2>&1 | tail -n 60 >&2 || true
        failed=1
    fi
    python3 scripts/count_tests.py "$log" | sed -E "s@^(pass|fail|skip) @\1 ${2:+$2: }@" >"$results.new"
    if [ ! -s "$results.new" ] || { [ "$failed" ] && ! grep -q '^fail ' "$results.new"; }; then
        echo "fail ctest in $1: see $log" >>"$results.new"
    fi
    cat "$results.new" >>"$results"
    rm -f "$results.new"
}

[ $what = sanitize ] || scripts/setup.sh --checks || echo "lowbeam: going on without the ffmpeg program" >&2

# built FOLDER ARGUMENTS...: false, with a failure counted, where it does not build.
built() {
    scripts/build.sh "$@" && return
    echo "fail building $1" >>"$results"
    return 1
}

folder_built=
if [ $what != sanitize ] && built "$folder"; then
    folder_built=1
    [ $what = checks ] || run_ctest "$folder" ""
fi
# With asserts, little optimised, and always for the CPU.
if [ $what != checks ] && CUDA=0 built build-sanitize -DLOWBEAM_SANITIZE=address,undefined \
    -DCMAKE_BUILD_TYPE=Sanitize -DCMAKE_C_FLAGS=-O1; then
    (
        export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}"
        export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
        export LSAN_OPTIONS="${LSAN_OPTIONS:-suppressions=$LOWBEAM_TOP/scripts/lsan.supp:print_suppressions=0}"
        run_ctest build-sanitize sanitizers
    )
fi
[ -z "$folder_built" ] || scripts/check.sh "$folder" "$results"

grep -E '^(skip|fail) ' "$results" | sed -e 's/^skip /skipped: /' -e 's/^fail /FAILED: /' || true
count() { grep -c "^$1 " "$results" || true; }
failed=$(count fail)
echo "lowbeam: all that took $((SECONDS - start)) s" >&2
echo "$(count pass) passed, $failed failed, $(count skip) skipped"
[ "$failed" -eq 0 ]
