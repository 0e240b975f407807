#!/usr/bin/env bash
# Answers with the detector, at full size: how long each phase takes, and what is not hidden behind the GPU's work.
#   bench/gpu_sight.sh "LOWBEAM COMMAND" LLM.gguf MMPROJ.gguf DET.gguf OUT_DIR
# Any weights do, random ones too (bench/full_detector.py): at threshold 0 every box counts. Frames are 1920x1080, which the
# detector takes as 1333x750. 88 tiles: 9 a frame and two crops. LOWBEAM_BENCH_VIDEOS, _SIZE, _OPTIONS for a small try.
set -euo pipefail
lowbeam=$1 llm=$2 mmproj=$3 detector=$4 out=$5
here=$(cd "$(dirname "$0")" && pwd)
videos=${LOWBEAM_BENCH_VIDEOS:-6} size=${LOWBEAM_BENCH_SIZE:-1920x1080} options=${LOWBEAM_BENCH_OPTIONS:-}
work=${LOWBEAM_BENCH_DIR:-/dev/shm/lowbeam-sight}
mkdir -p "$out" "$work"
[ -e "$work/load-$size-$videos/questions.json" ] ||
    python3 "$here/make_load.py" "$work/load-$size-$videos" --videos "$videos" --size "$size"

run() {
    local name=$1
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    rm -f "$out/$name".{csv,db}
    # shellcheck disable=SC2086
    $lowbeam answer "$work/load-$size-$videos/questions.json" --model "$llm" --mmproj "$mmproj" --max-new-tokens 3 -v \
        $options --out "$out/$name.csv" "$@" >"$out/$name.log" 2>&1 || [ $? = 3 ] || { tail -n 20 "$out/$name.log"; return 1; }
    grep -E '^\[VRAM|answered in|device memory' "$out/$name.log"
    python3 - "$out/$name.db" "$out/$name.log" <<'END'
import re
import sqlite3
import sys

rows = sqlite3.connect(sys.argv[1]).execute(
    "SELECT video_path, decode_s, detect_s, encode_s, prompt_s, generate_s FROM answer ORDER BY question").fetchall()
first = rows[0][0]
later = [row[1:] for row in rows if row[0] != first] or [row[1:] for row in rows]
names = ("decode and cut", "detect", "encode", "prompt", "generate")
mean = [sum(column) / len(later) for column in zip(*later)]
print("ms a question, the first video left out: " + ", ".join(f"{n} {1000 * m:.1f}" for n, m in zip(names, mean)))
print(f"    without decoding and cutting: {1000 * sum(mean[1:]):.1f}")
with open(sys.argv[2], encoding="utf-8", errors="replace") as file:
    whole = float(re.search(r"answered in ([0-9.]+) s", file.read()).group(1))
phases = sum(sum(row[2:]) for row in rows)
print(f"whole run {whole:.2f} s, phases of the engine {phases:.2f} s, between them {1000 * (whole - phases) / len(rows):.1f} ms "
      "a question")
END
}
run plain-72 --max-tiles 8
run sight-88 --max-tiles 8 --detector "$detector" --detection-threshold 0 --text-threshold 1 --max-detections 2
run sight-48 --max-tiles 1 --detector "$detector" --detection-threshold 0 --text-threshold 1
run sight-48-alone --max-tiles 1 --detector "$detector" --detection-threshold 0 --text-threshold 1 --detector-batch 1
run sight-88-no-reuse --max-tiles 8 --detector "$detector" --detection-threshold 0 --text-threshold 1 --max-detections 2 \
    --no-reuse
