#!/bin/bash
# valgrind's memcheck on one run from questions to CSV with the small default models, lowbeam and its engine process:
#   memcheck.sh FOLDER [options of lowbeam answer]
# No error, and nothing lost that lowbeam allocated. Suppressions: scripts/valgrind.supp, for other people's libraries.
# Not lowbeam-decode: its limits would stop valgrind; its own code runs under AddressSanitizer in `make sanitize`.
# One tile and two questions, since valgrind does each fused multiply-add by hand: some 4 minutes on a machine at rest.
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
folder=$1
shift
command -v valgrind >/dev/null || fail "memcheck.sh needs valgrind (on Debian: apt-get install valgrind)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Two questions of one clip: the prefix is shared.
python3 - samples/questions.json "$work/questions.json" <<'END'
import json, sys
data = json.load(open(sys.argv[1], encoding="utf-8"))["data"]
one = [question for question in data if question["video_path"] == data[0]["video_path"]][:2]
json.dump({"data": one}, open(sys.argv[2], "w", encoding="utf-8"), ensure_ascii=False)
END
start=$SECONDS
status=0
valgrind --trace-children=yes "--trace-children-skip=*lowbeam-decode" "--log-file=$work/run-%p.log" --num-callers=30 \
    --leak-check=full --show-leak-kinds=definite,possible --errors-for-leak-kinds=definite --gen-suppressions=all \
    "--suppressions=$LOWBEAM_TOP/scripts/valgrind.supp" "$folder/lowbeam" answer "$work/questions.json" --videos samples -n 1 \
    -t 1 --max-new-tokens 2 --decode-timeout 600 --out "$work/run.csv" "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
errors=0 processes=0 leaked=0
for log in "$work"/run-*.log; do
    # A process that became another program (the decoder) has no summary.
    summary=$(sed -n 's/^==[0-9]*== ERROR SUMMARY: \([0-9]*\) errors.*/\1/p' "$log" | tail -n 1)
    [ -n "$summary" ] || continue
    processes=$((processes + 1))
    errors=$((errors + summary))
    lost=$(sed -n 's/^==[0-9]*== *definitely lost: \([0-9,]*\) bytes.*/\1/p' "$log" | tail -n 1 | tr -d ,)
    leaked=$((leaked + ${lost:-0}))
    [ "$summary" -eq 0 ] || cat "$log"
done
rows=$(python3 -c 'import csv, sys; print(len(list(csv.reader(open(sys.argv[1], encoding="utf-8")))) - 1)' "$work/run.csv" || echo 0)
# 3: two tokens are not always enough for a letter
[ $status -eq 0 ] || [ $status -eq 3 ] || tail -n 20 "$work/err" >&2
echo "memcheck: $rows of 2 questions, exit status $status, $processes processes, $errors errors, $leaked bytes lost," \
    "$((SECONDS - start)) s"
[ "$rows" -eq 2 ] && { [ $status -eq 0 ] || [ $status -eq 3 ]; } && [ $errors -eq 0 ] && [ $leaked -eq 0 ] && [ $processes -ge 2 ]
