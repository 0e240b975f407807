#!/usr/bin/env bash
# Many measurements in one call, for a machine with NVIDIA cards that is lent for minutes: a queue of jobs for each card, all
# queues at once, then jobs that need all cards.
#   bench/gpu_all.sh CARRIED OUT "JOB JOB ..." ["JOB ..." for the second card] [-- "JOB ..." with all cards]
# CARRIED: bundle.tar.xz (lowbeam, dump_detector, dump_memory, bench_detector built for CUDA, with a `run` script), small.tar.xz
# (tools/make_detector_models.py), frames/ and cpu.jsonl (pictures, and what the CPU's f32 saw in them), vocab.gguf, gguf-py/,
# full_size_models.py, peer_pytorch.py. LLAMA_LIBS: a folder with CUDA's libggml*.so and libllama.so in place of the bundle's.
# JOB: detector, base, trained, peer, agreement, or a step of gpu_memory.sh. What comes back
# is OUT/*.log and OUT/logs.tar.xz.
set -uo pipefail
carried=$(cd "$1" && pwd) out=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
work=${LOWBEAM_BENCH_DIR:-/dev/shm/lowbeam}
export PYTHONPATH=$carried/gguf-py${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 CUDA_DEVICE_ORDER=PCI_BUS_ID
export TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1
mkdir -p "$work/bundle" "$work/logs" "$out"
# What is there when the call is cut off has been written already; the logs are packed after each job.
pack() { tar -C "$work" --exclude='*.csv' -cJf "$work/logs.$BASHPID" logs && mv "$work/logs.$BASHPID" "$out/logs.tar.xz"; }

tar xJf "$carried/bundle.tar.xz" -C "$work/bundle"
if [ -n "${LLAMA_LIBS:-}" ]; then
    rm -f "$work"/bundle/lib/lib{ggml,llama}*
    cp -L "$LLAMA_LIBS"/lib{ggml,llama}*.so* "$work/bundle/lib/"
fi
lowbeam="$work/bundle/run lowbeam"
nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used --format=csv,noheader
nvidia-smi topo -m 2>/dev/null | head -n 4
nproc
memory() { LOWBEAM_BENCH_DIR=$work/memory "$here/gpu_memory.sh" "$lowbeam" "$work/llm.gguf" "$work/mmproj.gguf" "$work/det.gguf" "$work/logs" "$@"; }
models() {
    memory & # makes the loads
    [ -e "$work/llm.gguf" ] || {
        python3 "$carried/full_size_models.py" "$carried/vocab.gguf" "$work/llm.part" "$work/mmproj.gguf" && mv "$work/llm.part" "$work/llm.gguf"
    }
    [ -e "$work/small-vlm/llm-bf16.gguf" ] || {
        mkdir -p "$work/small-vlm"
        python3 "$carried/full_size_models.py" "$carried/vocab.gguf" "$work/small-vlm/llm-bf16.gguf" "$work/small-vlm/mmproj-bf16.gguf" --small
    }
    [ -e "$work/det.gguf" ] || {
        { [ -e "$work/tiny/preprocessor_config.json" ] ||
            CUDA_VISIBLE_DEVICES='' python3 "$here/full_detector.py" "$work/tiny" --kind tiny >"$work/logs/tiny.log" 2>&1; } &&
            $lowbeam convert "$work/tiny" -o "$work/det.gguf" --type f16
    }
    wait
}
models &
models_pid=$!
ready() { while kill -0 $models_pid 2>/dev/null; do sleep 0.2; done; }

job() {
    local card=$1 name=$2
    printf '\n== %s on card %s (%s s since the start)\n' "$name" "$card" "$SECONDS"
    case $name in
    detector)
        CUDA_VISIBLE_DEVICES=$card LOWBEAM_BENCH_DIR=$work/detector "$here/gpu_detector.sh" "$carried/bundle.tar.xz" \
            "$carried/small.tar.xz" "$work/logs"
        ;;
    trained)
        CUDA_VISIBLE_DEVICES=$card $lowbeam detect "$carried/frames" --detector "$carried/grounding-dino-lowbeam-small.gguf" \
            --device cuda0 --json >"$work/logs/gpu.jsonl" 2>"$work/logs/trained.log" || tail -n 5 "$work/logs/trained.log"
        python3 "$here/detect_agreement.py" -v "$carried/cpu.jsonl" "$work/logs/gpu.jsonl"
        ;;
    base)
        CUDA_VISIBLE_DEVICES='' python3 "$here/full_detector.py" "$work/base" --kind base >"$work/logs/base.log" 2>&1 &&
            $lowbeam convert "$work/base" -o "$work/base.gguf"
        for batch in 8 1; do
            CUDA_VISIBLE_DEVICES=$card "$work/bundle/run" bench_detector "$work/base.gguf" --device cuda0 --size 1333x750 \
                --rounds 10 --batch $batch
        done
        ;;
    peer)
        ready
        CUDA_VISIBLE_DEVICES=$card python3 "$carried/peer_pytorch.py" 2>&1 | tail -n 6
        ;;
    agreement)
        CUDA_VISIBLE_DEVICES=$card "$here/agreement.sh" "$lowbeam" "$carried/vocab.gguf" "$carried/full_size_models.py" \
            "$work/memory/wide1" "$work/small-vlm"
        ;;
    *)
        ready
        CARD=$card SMALL_MODELS=$work/small-vlm memory "$name"
        ;;
    esac
}

queue() {
    local card=$1 name
    for name in $2; do
        job "$card" "$name"
        pack
    done >"$out/card$card.log" 2>&1
}

card=0
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    queue $card "$1" &
    card=$((card + 1))
    shift
done
wait
for ((i = 0; i < card; i++)); do cat "$out/card$i.log"; done
if [ "${1:-}" = -- ]; then
    for name in $2; do
        job 0 "$name"
        pack
    done 2>&1 | tee "$out/all.log"
fi
pack
ls -la "$out"
