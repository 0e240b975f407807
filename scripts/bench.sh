#!/bin/bash
# The measurements that need no GPU: bench.sh FOLDER. Builds, then runs each bench/bench_*.py with what it asks for.
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
folder=$1
scripts/build.sh "$folder"
python=$(scripts/checks_venv.sh) || fail "make bench needs the Python packages of the checks: see $LOWBEAM_CACHE/log"
status=0
for bench in bench/bench_*.py; do
    echo "== $bench"
    "$python" "$bench" --build "$folder" || status=1
done
exit $status
