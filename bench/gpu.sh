#!/usr/bin/env bash
# Full-size measurement on a machine with an NVIDIA card: lowbeam beside the PyTorch program that it replaces.
#   bench/gpu.sh BUNDLE.tar.xz VOCAB.gguf FULL_SIZE_MODELS.py PEER.py OUT_DIR [GGUF_PY_DIR]
# BUNDLE: lowbeam built for CUDA with the libraries it needs (a `run` script starts programs from it). The models are written
# to a RAM disk with random weights: time and memory do not depend on them.
set -euo pipefail
bundle=$1 vocab=$2 models=$3 peer=$4 out=$5
export PYTHONPATH=${6:-}${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
here=$(cd "$(dirname "$0")" && pwd)
work=${LOWBEAM_BENCH_DIR:-/dev/shm/lowbeam}
mkdir -p "$work" "$out"
step() { printf '\n== %s (%s s since the start)\n' "$*" "$SECONDS"; }

step unpack
mkdir -p "$work/bundle" && tar xJf "$bundle" -C "$work/bundle"
lowbeam() { python3 "$here/device_memory.py" "$work/bundle/run" lowbeam "$@"; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
if [ ! -e "$work/llm.gguf" ]; then
    step "models and load"
    python3 "$models" "$vocab" "$work/llm.gguf" "$work/mmproj.gguf" &
    python3 "$here/make_load.py" "$work/load" --videos 4
    wait $!
fi
ls -l "$work"/*.gguf
common=(answer "$work/load/questions.json" --model "$work/llm.gguf" --mmproj "$work/mmproj.gguf" --max-tiles 10
    --max-new-tokens 3 -v)

step "lowbeam: 88 tiles, 3 questions a video, bf16"
lowbeam "${common[@]}" --out "$out/reuse.csv" 2>&1 | tee "$out/reuse.log" || true
for extra in ${LOWBEAM_BENCH_EXTRA:-}; do
    step "lowbeam ${extra//,/ }"
    # shellcheck disable=SC2086
    lowbeam "${common[@]}" ${extra//,/ } --out "$out/${extra//[^a-z0-9]/}.csv" 2>&1 | tee "$out/${extra//[^a-z0-9]/}.log" || true
done

step "agreement of GPU and CPU"
"$here/agreement.sh" "$work/bundle/run lowbeam" "$vocab" "$models" "$work/load" "$work/small" 2>&1 | tee "$out/agreement.log"

step "PyTorch: the same load, no detector"
python3 "$peer" --frames 0 2>&1 | tail -n 4 | tee "$out/peer.log"
step done
