#!/usr/bin/env bash
# The memory plan on an NVIDIA card: budgets with everything above them taken away by another process, the answers compared
# with those of the largest budget, the planned peak beside the one that NVML saw.
#   bench/gpu_memory.sh "LOWBEAM COMMAND" LLM.gguf MMPROJ.gguf DET.gguf OUT_DIR [STEP...]
# LLM in bf16, full size (full_size_models.py); DET with any weights: at threshold 0 every box counts. 88 tiles: eight frames
# of 16:9 with nine tiles and two crops each. STEPs, in this order when none are named: bf16 q8 q4 sizes.
set -uo pipefail
lowbeam=$1 llm=$2 mmproj=$3 detector=$4 out=$5
shift 5
steps=${*:-bf16 q8 q4 sizes}
here=$(cd "$(dirname "$0")" && pwd)
work=${LOWBEAM_BENCH_DIR:-/dev/shm/lowbeam-memory}
videos=${LOWBEAM_BENCH_VIDEOS:-2}
mkdir -p "$out" "$work"
[ -e "$work/load/questions.json" ] || python3 "$here/make_load.py" "$work/load" --videos "$videos" --size 1920x1080
eyes88="--max-tiles 8 --detector $detector --detection-threshold 0 --text-threshold 1 --max-detections 2"

# run NAME BUDGET_GIB|none OPTION...: one line of what matters, the log in OUT
run() {
    local name=$1 budget=$2 vram=()
    shift 2
    rm -f "$out/$name".{csv,db}
    export LOWBEAM_BENCH_BUDGET=
    if [ "$budget" != none ]; then
        vram=(--vram "${budget}GiB")
        LOWBEAM_BENCH_BUDGET=$(python3 -c "print(int($budget * 2**30))")
    fi
    python3 "$here/device_memory.py" $lowbeam answer "$work/load/questions.json" --model "$llm" --mmproj "$mmproj" \
        --max-new-tokens 3 -v --cache-dir "$work" "${vram[@]}" "$@" --out "$out/$name.csv" >"$out/$name.log" 2>&1
    local status=$?
    printf '%-14s exit %s  ' "$name" "$status"
    sed -n 's/.*questions answered in \([0-9.]*\) s (\(.*\) each), \([0-9]*\) by fallback/\2 a question, \3 fallback /p' "$out/$name.log" | tr '\n' ' '
    sed -n 's/^  peak  *\([0-9.]*\) *\([0-9.]*\) (\(.*\))/planned \1 MiB, device \2 MiB (\3)/p' "$out/$name.log" | tr '\n' ' '
    sed -n 's/.*peak \([0-9.]*\) GiB above that/NVML peak \1 GiB/p' "$out/$name.log"
    grep '^To fit:' "$out/$name.log" | sed 's/^/    /'
    [ $status = 0 ] || grep -v '^\[' "$out/$name.log" | tail -n 4 | cut -c1-300
}
agree() { python3 "$here/compare_runs.py" "$out/$1.db" "${@:2}"; }

for step in $steps; do
    printf '\n== %s (%s s since the start)\n' "$step" "$SECONDS"
    case $step in
    bf16)
        run bf16-none none $eyes88
        run bf16-24 24 $eyes88
        run bf16-20 20 $eyes88
        run bf16-18 18 $eyes88
        agree bf16-24 "$out"/bf16-{none,20,18}.db
        ;;
    q8)
        run q8-24 24 $eyes88 --allow weights-q8 --load_in_8bit
        run q8-12 12 $eyes88 --allow weights-q8 --load_in_8bit
        agree q8-24 "$out/q8-12.db"
        ;;
    q4)
        run q4-24 24 $eyes88 --allow weights-q4 --weight-bits 4
        run q4-8 8 $eyes88 --allow weights-q4 --weight-bits 4
        run q4-6 6 $eyes88 --allow weights-q4 --weight-bits 4
        agree q4-24 "$out"/q4-{8,6}.db
        ;;
    sizes)
        run bf16-8-plain none --max-tiles 1
        run bf16-48 none --max-tiles 1 --detector "$detector" --detection-threshold 0 --text-threshold 1
        run bf16-72-plain none --max-tiles 8
        ;;
    two)
        LOWBEAM_BENCH_BUDGET='' run bf16-two none $eyes88 --device cuda0,cuda1 --vram 11GiB,11GiB
        agree bf16-24 "$out/bf16-two.db"
        ;;
    ballast)
        LOWBEAM_BENCH_BALLAST_GROWS=${LOWBEAM_BENCH_GROWS:-14,4294967296} run bf16-ballast 22 $eyes88
        ;;
    esac
done
grep -h "libraries while" -B0 "$out"/*.log | sort | uniq -c | head -40
