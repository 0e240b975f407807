#!/bin/bash
# The tests that take long, each with a line of counts at the end: soak.sh FOLDER [NAME...]
# Logs in FOLDER/log/soak-NAME.log; the last output stands in docs/safety.md. Exit status 1 when one failed. The counts can
# be set by the variables below: LOWBEAM_KILLS=1000 make soak
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
folder=$1
shift
wanted=" $* "
scripts/build.sh "$folder"
LOWBEAM_BUILD=$(cd "$folder" && pwd)
export LOWBEAM_BUILD LOWBEAM_DECODE=$LOWBEAM_BUILD/lowbeam-decode
status=0

# soak NAME COUNTS VARIABLE=VALUE... COMMAND...: COUNTS: what the lines have in common that tell the counts
soak() {
    local name=$1 counts=$2 log=$folder/log/soak-$1.log
    shift 2
    [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || return 0
    step "$name" "$log" env "$@" || status=1
    grep -E "$counts" "$log" || true
}

# Killed at random moments and resumed, the default models: some 5 minutes on two idle cores.
soak kills ' kills, ' "LOWBEAM_KILLS=${LOWBEAM_KILLS:-200}" python3 tests/run/test_kills.py
# Power cuts, simulated on what was written and synced.
soak power ' power cuts' "LOWBEAM_POWER_CUTS=${LOWBEAM_POWER_CUTS:-20000}" "$folder/tests/test_power"
# 100,000 questions, 5,000 on one video.
soak edges ' questions in ' "LOWBEAM_MANY=${LOWBEAM_MANY:-100000}" python3 tests/run/test_edges.py
# Real files of six containers, damaged.
soak mutations ' damaged files | runs lost' "LOWBEAM_MUTATIONS=${LOWBEAM_MUTATIONS:-3000}" python3 tests/run/test_mutations.py
# Model files, damaged.
soak models ' damaged |runs lost' "LOWBEAM_MODEL_MUTATIONS=${LOWBEAM_MODEL_MUTATIONS:-600}" python3 tests/run/test_mutated_models.py
# What has threads of our own under ThreadSanitizer, and one run under valgrind's memcheck.
soak threads '^ThreadSanitizer|FAILED' scripts/tsan.sh
soak memcheck '^memcheck' scripts/memcheck.sh "$folder"
# Each call that can fail, made to fail: half an hour for each of the scenarios at most.
soak faults ' faults ' LOWBEAM_FAULT_SECONDS=1800 python3 tests/memory/test_injected.py
# 2,000 questions over 700 videos: memory at the end as at the tenth.
soak flat '^memory, |^ledger ' LOWBEAM_FLAT_VIDEOS=700 LOWBEAM_FLAT_QUESTIONS=2000 python3 tests/memory/test_flat.py
exit $status
