#!/usr/bin/env bash
# The memory plan on NVIDIA cards: budgets with everything above them taken away by another process, the answers compared
# with those of the largest budget, the planned peak beside the one that NVML saw.
#   bench/gpu_memory.sh "LOWBEAM COMMAND" LLM.gguf MMPROJ.gguf DET.gguf OUT_DIR [STEP...]
# LLM in bf16, full size (full_size_models.py); DET with any weights: at threshold 0 every box counts. 88 tiles: eight frames
# of 16:9 with nine tiles and two crops each. STEPs, in the order given: bf16 q8 q4 (budgets, answers), sizes-bf16 sizes-q8
# sizes-q4 (8, 48 and 88 tiles, with and without detector), ballast (another process takes memory during the run), cache (the
# folder of what the models saw), other (the second card alone), two (layers over both), engines (an engine a card),
# virtual (one card offered as two), steps (prompt steps with host layers), plan (how long one takes), flat (700 videos).
# CARD: the card, as nvidia-smi numbers it. From the environment also: LOWBEAM_BENCH_DIR, _VIDEOS, _ONLY (a pattern: the runs
# with such names alone).
set -uo pipefail
lowbeam=$1 llm=$2 mmproj=$3 detector=$4 out=$5
shift 5
here=$(cd "$(dirname "$0")" && pwd)
work=${LOWBEAM_BENCH_DIR:-/dev/shm/lowbeam-memory}
videos=${LOWBEAM_BENCH_VIDEOS:-3}
card=${CARD:-0}
export CUDA_VISIBLE_DEVICES=$card CUDA_DEVICE_ORDER=PCI_BUS_ID LOWBEAM_BENCH_CARD=$card
mkdir -p "$out" "$work"
# load NAME SIZE VIDEOS
load() {
    [ -e "$work/$1/questions.json" ] || python3 "$here/make_load.py" "$work/$1.part" --videos "$3" --size "$2"
    [ -e "$work/$1/questions.json" ] || mv "$work/$1.part" "$work/$1"
}
eyes="--detector $detector --detection-threshold 0 --text-threshold 1"
eyes88="--max-tiles 8 $eyes --max-detections 2"

# run NAME BUDGET[,BUDGET]|none OPTION...: one line of what matters, the log in OUT. Budgets in GiB. set: load_name.
load_name=load questions=questions.json
run() {
    local name=$1 budget=$2 vram=()
    shift 2
    [[ -z ${LOWBEAM_BENCH_ONLY:-} || $name =~ $LOWBEAM_BENCH_ONLY ]] || return 0
    rm -f "$out/$name".{csv,db}
    export LOWBEAM_BENCH_BUDGET=
    if [ "$budget" != none ]; then
        vram=(--vram "${budget//,/GiB,}GiB")
        LOWBEAM_BENCH_BUDGET=$(python3 -c "print(','.join(str(int(float(b) * 2**30)) for b in '$budget'.split(',')))")
    fi
    local start=$EPOCHREALTIME
    # shellcheck disable=SC2086
    timeout 150 python3 "$here/device_memory.py" $lowbeam answer "$work/$load_name/$questions" --model "$llm" --mmproj "$mmproj" \
        --max-new-tokens 3 -v "${vram[@]}" "$@" --out "$out/$name.csv" >"$out/$name.log" 2>&1
    local status=$?
    printf '%-16s exit %s  ' "$name" "$status"
    sed -n 's/.*questions answered in \([0-9.]*\) s (\(.*\) each), \([0-9]*\) by fallback/\2 a question, \3 fallback /p' "$out/$name.log" | tr '\n' ' '
    sed -n 's/^  peak  *\([0-9.]*\) *\([0-9.]*\) (\(.*\))/planned \1 MiB, device \2 MiB (\3)/p' "$out/$name.log" | tr '\n' ' '
    sed -n 's/.*device memory: \(card [0-9]*: \)*before.*peak \([0-9.]*\) GiB above that/\1NVML \2/p' "$out/$name.log" |
        awk '{ printf "%s%.0f MiB  ", $1 == "NVML" ? "NVML " : $1 " " $2 " NVML ", $NF * 1024 }'
    awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "[%.1f s in all]\n", b - a }'
    grep '^To fit:' "$out/$name.log" | sed 's/^/    /'
    grep -h 'starting another one\|the ballast grew' "$out/$name.log" | sed 's/^/    /' | cut -c1-300
    [ $status = 0 ] || grep -v '^\[' "$out/$name.log" | tail -n 4 | cut -c1-300
}
# agree REFERENCE JOURNAL...: of the runs that there are
agree() {
    local there=() path
    for path in "${@:2}"; do [ ! -e "$path" ] || there+=("$path"); done
    [ ${#there[@]} = 0 ] || python3 "$here/compare_runs.py" "$out/$1.db" "${there[@]}"
}
# sizes NAME OPTION...: the six loads. 48 tiles without a detector: six of 1120x448's grid of 5x1 and its thumbnail.
sizes() {
    local name=$1
    shift
    load_name=load1
    run "$name-t88-eyes" none $eyes88 "$@"
    run "$name-t48-eyes" none --max-tiles 1 $eyes "$@"
    run "$name-t16-eyes" none --max-tiles 1 $eyes --max-detections 1 "$@"
    load_name=wide1
    run "$name-t88" none --max-tiles 10 "$@"
    run "$name-t48" none --max-tiles 5 "$@"
    run "$name-t8" none --max-tiles 1 "$@"
    load_name=load
}

# split N: the load's questions as questions_<i>.json, whole videos dealt in turn
split() {
    python3 - "$work/$load_name" "$1" <<'END'
import json, sys
folder, n = sys.argv[1], int(sys.argv[2])
data = json.load(open(f"{folder}/questions.json", encoding="utf-8"))["data"]
videos = list(dict.fromkeys(q["video_path"] for q in data))
for i in range(n):
    part = [q for q in data if videos.index(q["video_path"]) % n == i]
    json.dump({"__count__": len(part), "data": part}, open(f"{folder}/questions_{i}.json", "w", encoding="utf-8"))
END
}

load load 1920x1080 "$videos"
load load1 1920x1080 1
load wide1 1120x448 1
load load16 1920x1080 16
for step in "$@"; do
    printf '\n== %s, card %s (%s s since the start)\n' "$step" "$card" "$SECONDS"
    case $step in
    bf16)
        run bf16-none none $eyes88
        run bf16-24 24 $eyes88
        run bf16-20 20 $eyes88
        run bf16-18 18 $eyes88
        run bf16-16 16 $eyes88
        run bf16-15.4 15.4 $eyes88
        run bf16-14.6 14.6 $eyes88
        run bf16-10 10 $eyes88
        run bf16-4 4 $eyes88
        agree bf16-24 "$out"/bf16-{none,20,18,16,15.4,14.6,10,4}.db
        ;;
    steps)
        # larger prompt steps where layers wait on the host: fewer crossings, more activations
        for n in 2048 4096 8192; do
            for vram in 10 4; do run "steps-$vram-$n" $vram $eyes88 --ubatch $n; done
        done
        agree bf16-24 "$out"/steps-*.db
        ;;
    q8)
        run q8-24 24 $eyes88 --load_in_8bit
        run q8-12 12 $eyes88 --load_in_8bit
        run q8-10 10 $eyes88 --load_in_8bit
        agree q8-24 "$out"/q8-{12,10}.db
        ;;
    q4)
        run q4-24 24 $eyes88 --weight-bits 4
        run q4-8 8 $eyes88 --weight-bits 4
        run q4-6 6 $eyes88 --weight-bits 4
        agree q4-24 "$out"/q4-{8,6}.db
        # random weights choose other boxes for one frame at a time: the same with that
        run q4-24-one 24 $eyes88 --weight-bits 4 --detector-batch 1
        agree q4-24-one "$out/q4-6.db"
        ;;
    sizes-bf16) sizes bf16 ;;
    sizes-q8) sizes q8 --load_in_8bit ;;
    sizes-q4) sizes q4 --weight-bits 4 ;;
    ballast)
        # its models' context is made for each video: what is taken between two is missed by the next
        rm -f "$out/bf16-ballast.db"
        LOWBEAM_BENCH_BALLAST_AFTER=$out/bf16-ballast.db LOWBEAM_BENCH_BALLAST_GROWS=${LOWBEAM_BENCH_GROWS:-3,1073741824} \
            run bf16-ballast 15.4 $eyes88
        agree bf16-24 "$out/bf16-ballast.db"
        ;;
    cache)
        rm -rf "$work/seen"
        run cache-fresh 24 $eyes88 --cache-dir "$work/seen"
        run cache-again 24 $eyes88 --cache-dir "$work/seen"
        agree bf16-24 "$out"/cache-{fresh,again}.db
        ;;
    plan)
        # how long it takes: with room, with host layers
        for vram in 24GiB 10GiB 6GiB; do
            TIMEFORMAT="plan for $vram: %R s"
            time $lowbeam plan "$work/load/questions.json" --model "$llm" --mmproj "$mmproj" $eyes88 --max-new-tokens 3 \
                --vram $vram 2>&1 | grep -E "^  peak|^To fit"
        done
        ;;
    flat)
        # 2,100 questions about 700 videos, small models with random weights (full_size_models.py --small) in SMALL_MODELS
        load flat 160x120 700
        rm -f "$out"/flat.*
        python3 "$here/device_memory.py" $lowbeam answer "$work/flat/questions.json" --model "$SMALL_MODELS/llm-bf16.gguf" \
            --mmproj "$SMALL_MODELS/mmproj-bf16.gguf" --max-new-tokens 3 --device cuda0 --out "$out/flat.csv" >"$out/flat.log" 2>&1
        grep -h 'questions answered\|device memory' "$out/flat.log"
        grep -h '^\[VRAM' "$out/flat.log" | sed -n '4p;$p'
        ;;
    other)
        # the second card alone: nothing of the first is touched
        (
            unset CUDA_VISIBLE_DEVICES
            LOWBEAM_BENCH_CARD=0,1 run bf16-other none $eyes88 --device cuda1
        )
        ;;
    two)
        (
            unset CUDA_VISIBLE_DEVICES
            export LOWBEAM_BENCH_CARD=0,1
            run bf16-two-11 11,11 $eyes88 --device cuda0,cuda1
            run bf16-two-9 9,9 $eyes88 --device cuda0,cuda1
            run bf16-two-12-6 6,12 $eyes88 --device cuda0,cuda1
            # with layers on the host
            run bf16-two-7 7,7 $eyes88
            run bf16-two-5 5,5 $eyes88
            run bf16-two-4-8 4,8 $eyes88
        )
        agree bf16-24 "$out"/bf16-two-{11,9,12-6,7,5,4-8}.db
        ;;
    virtual)
        # ggml offers one card as two: the split and two engines at once by CUDA's kernels; their memory is one card's
        (
            export GGML_CUDA_DEVICES=2
            run virtual-two none $eyes88 --device cuda0,cuda1 --vram 11GiB,11GiB
            run virtual-engines none $eyes88 --device cuda0,cuda1 --vram 24GiB
        )
        agree bf16-24 "$out"/virtual-{two,engines}.db
        ;;
    engines)
        # N cards: one engine on one of them, layers over all, an engine a card in one run, a run a card over shards
        (
            unset CUDA_VISIBLE_DEVICES
            n=$(nvidia-smi -L | wc -l) all=cuda0 budgets=11
            for ((i = 1; i < n; i++)); do all+=,cuda$i budgets+=,11; done
            LOWBEAM_BENCH_CARD=$(seq -s, 0 $((n - 1)))
            export LOWBEAM_BENCH_CARD
            load_name=load16
            run engines-one none $eyes88 --device cuda0
            run engines-split "$budgets" $eyes88 --device "$all"
            run engines-all none $eyes88 --device "$all"
            # within budgets that leave each card nothing more: no engine may touch another's
            run engines-tight "${budgets//11/18.7}" $eyes88 --device "$all"
            run engines-auto none $eyes88
            agree engines-one "$out"/engines-{split,all,tight,auto}.db
            split "$n"
            start=$(date +%s.%N)
            for ((i = 0; i < n; i++)); do
                questions=questions_$i.json LOWBEAM_BENCH_CARD=$i run "engines-shard$i" none $eyes88 --device "cuda$i" &
            done
            wait
            echo "$n runs, each a card and its share, loading included: $(date +%s.%N | awk "{ print \$1 - $start }") s"
        )
        ;;
    *) echo "gpu_memory.sh: no step $step" ;;
    esac
done
