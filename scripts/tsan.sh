#!/bin/bash
# ThreadSanitizer over what has threads of our own: clips made ready ahead, the detector's crops, the clients of the
# decoder, and whole runs of the program. tsan.sh [ctest's -R pattern]. Suppressions: scripts/tsan.supp, for other people's
# libraries alone, which are not built with it.
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
pattern=${1:-'^test_(prefetch|sources|crops|video|confine|wire|journal|log|answer|processes|hostile)'}
CUDA=0 scripts/build.sh build-tsan -DLOWBEAM_SANITIZE=thread -DCMAKE_BUILD_TYPE=Sanitize -DCMAKE_C_FLAGS=-O1
export TSAN_OPTIONS="suppressions=$LOWBEAM_TOP/scripts/tsan.supp:halt_on_error=0:second_deadlock_stack=1:exitcode=66"
# Their threads are not seen, and OpenMP's barriers would look like none.
export OMP_NUM_THREADS=1
log=build-tsan/log/ctest.log
status=0
LOWBEAM_TAIL=0 step "tests under ThreadSanitizer" "$log" ctest --test-dir build-tsan --verbose --timeout 1200 -R "$pattern" \
    --no-tests=error || status=$?
python3 scripts/count_tests.py "$log" | grep -vE '^pass ' | sed -e 's/^skip /skipped: /' -e 's/^fail /FAILED: /' || true
warnings=$(grep -c 'WARNING: ThreadSanitizer' "$log" || true)
echo "ThreadSanitizer: $(python3 scripts/count_tests.py "$log" | grep -c '^pass ') tests passed, $warnings warnings"
[ $status -eq 0 ] && [ "$warnings" -eq 0 ]
