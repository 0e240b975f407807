#!/bin/bash
# valgrind's memcheck on one run from questions to CSV with the small default models: lowbeam and its engine process, and
# lowbeam-decode by itself (its filter of system calls would stop valgrind, so that one is built without):
#   memcheck.sh FOLDER [options of lowbeam answer]
# No error, and nothing lost that lowbeam allocated. Suppressions: scripts/valgrind.supp, for other people's libraries.
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
folder=$1
shift
command -v valgrind >/dev/null || fail "memcheck.sh needs valgrind (on Debian: apt-get install valgrind)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
options=(--quiet --child-silent-after-fork=no --leak-check=full --show-leak-kinds=definite,possible
    --errors-for-leak-kinds=definite --error-exitcode=99 --num-callers=30 --gen-suppressions=all
    "--suppressions=$LOWBEAM_TOP/scripts/valgrind.supp")

# One clip, two questions: the prefix is shared, too.
python3 - samples/questions.json "$work/questions.json" <<'END'
import json, sys
data = json.load(open(sys.argv[1], encoding="utf-8"))["data"]
one = [question for question in data if question["video_path"] == data[0]["video_path"]][:2]
json.dump({"data": one}, open(sys.argv[2], "w", encoding="utf-8"), ensure_ascii=False)
END
start=$SECONDS
status=0
valgrind "${options[@]}" --trace-children=yes "--trace-children-skip=*lowbeam-decode" "--log-file=$work/run-%p.log" \
    "$folder/lowbeam" answer "$work/questions.json" --videos samples -n 2 -t 1 --decode-timeout 300 --out "$work/run.csv" "$@" \
    >"$work/out" 2>"$work/err" </dev/null || status=$?
answered=$(($(wc -l <"$work/run.csv" 2>/dev/null || echo 1) > 1))
processes=$(find "$work" -name 'run-*.log' | wc -l)
cat "$work"/run-*.log
errors=$(cat "$work"/run-*.log | grep -cE '^==[0-9]+== (Invalid|Conditional jump|Use of uninit|Syscall param|Mismatched|Source and dest|Process terminating|Argument )' || true)
leaks=$(cat "$work"/run-*.log | grep -cE 'are definitely lost' || true)
[ $status -eq 0 ] || tail -n 20 "$work/err" >&2
echo "memcheck: exit status $status, $processes processes, $errors errors, $leaks leaks, $((SECONDS - start)) s"
[ $status -eq 0 ] && [ "$errors" -eq 0 ] && [ "$leaks" -eq 0 ] && [ "$answered" -eq 1 ] && [ "$processes" -ge 2 ]
