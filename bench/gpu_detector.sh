#!/usr/bin/env bash
# The detector on a machine with an NVIDIA card, in one run of under 150 s: does it give the CPU's numbers, where does its
# time go, how long does it take beside transformers.
#   bench/gpu_detector.sh BUNDLE.tar.xz SMALL_MODELS OUT_DIR
# BUNDLE: lowbeam, dump_detector, dump_memory and bench_detector built for CUDA, with a `run` script; SMALL_MODELS: a folder or .tar.xz
# of what tools/make_detector_models.py wrote. Needs torch, transformers and safetensors there. LLAMA_LIBS: a folder with
# CUDA's libggml*.so and libllama.so in place of the bundle's, such as a prefix's lib; one that was built there, say.
set -uo pipefail
bundle=$1 small=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
work=${LOWBEAM_BENCH_DIR:-/dev/shm/lowbeam-detector}
device=${LOWBEAM_BENCH_DEVICE:-cuda0} size=${LOWBEAM_BENCH_SIZE:-1333x750} rounds=${LOWBEAM_BENCH_ROUNDS:-10}
export PYTHONUNBUFFERED=1 TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE=1
mkdir -p "$work/bundle" "$out"
exec > >(tee "$out/gpu_detector.log") 2>&1
step() { printf '\n== %s (%s s since the start)\n' "$*" "$SECONDS"; }

step unpack
tar xJf "$bundle" -C "$work/bundle"
[ -d "$small" ] || { mkdir -p "$work/small" && tar xJf "$small" -C "$work/small" && small=$work/small; }
run=$work/bundle/run
if [ -n "${LLAMA_LIBS:-}" ]; then
    rm -f "$work"/bundle/lib/lib{ggml,llama}*
    cp -L "$LLAMA_LIBS"/lib{ggml,llama}*.so* "$work/bundle/lib/"
fi
ls "$work/bundle/lib"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
python3 -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)'

step "models"
make_model() {
    python3 "$here/full_detector.py" "$work/$1" --kind "$1" >"$work/$1.log" 2>&1 || { tail -n 20 "$work/$1.log"; return 1; }
    for type in $2; do "$run" lowbeam convert "$work/$1" -o "$work/$1-$type.gguf" --type "$type"; done
}
make_model base f16 &
base=$!
make_model tiny "f32 f16"

step "memory: what is measured before loading, and what is taken then"
for options in "" "--rest"; do "$run" dump_memory "$work/tiny-f16.gguf" 1920 1080 8 --device "$device" $options; done

step "timing: Swin-T f16, batches of 8 and 1, with our kernels"
bench() { "$run" bench_detector "$@" --device "$device" --size "$size" --rounds "$rounds"; }
bench "$work/tiny-f16.gguf" --batch 8 --profile
bench "$work/tiny-f16.gguf" --batch 1 --profile
step "timing: f32 and f32 exact"
bench "$work/tiny-f32.gguf" --batch 8
bench "$work/tiny-f32.gguf" --batch 1
bench "$work/tiny-f32.gguf" --batch 1 --exact

step "small models, every intermediate"
mkdir -p "$work/bundle/build/tests"
for p in lowbeam tests/dump_detector; do
    printf '#!/bin/sh\nexec "%s" %s "$@"\n' "$run" "$(basename $p)" >"$work/bundle/build/$p" && chmod +x "$work/bundle/build/$p"
done
for type in f32 f16; do
    python3 "$here/../tests/checks/check_detector.py" --build "$work/bundle/build" --detector-models "$small" --work "$work/checks" \
        --device "$device" --type "$type" --kind a >"$out/check-$type.log" 2>&1
    grep -v '^ok' "$out/check-$type.log" | tail -n 12
done

step "full size, every intermediate"
python3 "$here/detector_agreement.py" "$run dump_detector" "$work/tiny-f32.gguf" "$work/tiny-f16.gguf" "$work/agreement" \
    --size "$size" --device "$device"

step "transformers"
python3 "$here/peer_detector.py" "$work/tiny" --dtype float16 --batch 8 --size "$size" 2>&1 | tail -n 4
python3 "$here/peer_detector.py" "$work/tiny" --dtype float32 --batch 1 --size "$size" 2>&1 | tail -n 4

step "timing: by ggml's operations alone, batch of 1 with its profile"
bench "$work/tiny-f16.gguf" --batch 1 --gathers --profile --rounds 3
wait "$base" # not for all: the log's tee never ends
step "timing: Swin-B f16"
bench "$work/base-f16.gguf" --batch 8 --profile
bench "$work/base-f16.gguf" --batch 1
step done
