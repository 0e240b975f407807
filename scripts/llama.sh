#!/bin/bash
# Builds the pinned llama.cpp with pip into the cache folder, where it is not there yet, and prints its prefix.
#   llama.sh              for the CPU
#   llama.sh --cuda       for the CPU and NVIDIA cards: the one present, or CUDA_ARCHS (80;86;89;90 when none is)
#   llama.sh [...] --name only the prefix's path, nothing is built
. "$(dirname "$0")/common.sh"

cuda=
name_only=
for argument in "$@"; do
    case $argument in
    --cuda) cuda=1 ;;
    --name) name_only=1 ;;
    *) fail "llama.sh: unknown argument $argument" ;;
    esac
done

# Portable among x86 processors of the last ten years: what is built here may run on another machine.
arguments="-DGGML_NATIVE=OFF"
[ "$(uname -m)" != x86_64 ] || arguments+=" -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON"
options=cpu
job_kb=1500000
if [ "$cuda" ]; then
    archs=${CUDA_ARCHS:-}
    if [ -z "$archs" ] && command -v nvidia-smi >/dev/null; then
        archs=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -E '^[0-9.]+$' |
            tr -d . | sort -un | paste -sd ';' || true)
    fi
    archs=$(tr ', ' ';;' <<<"${archs:-80;86;89;90}")
    # lowbeam has one process a card: without NCCL, which ggml would link wherever the toolkit happens to have it.
    arguments+=" -DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF -DCMAKE_CUDA_ARCHITECTURES=$archs"
    options=cuda-${archs//;/-}
    job_kb=4000000
fi

here=$LOWBEAM_TOP/scripts
version=$(sed -n 's/^llama-cpp-python==\([^ ]*\).*/\1/p' "$here/requirements-llama.txt")
hash=$(hash_of "$here/requirements-llama.txt" "$here/constraints-llama.txt" - <<<"$arguments")
name=llama-cpp-$version-$options-$(uname -m)-$hash
prefix=$LOWBEAM_CACHE/$name
echo "$prefix"
# The folder gets its name when it is complete, so its being there is enough.
if [ "$name_only" ] || [ -d "$prefix" ]; then
    exit 0
fi

if [ "$cuda" ]; then
    [ -n "${CUDACXX:-}" ] || [ ! -x /usr/local/cuda/bin/nvcc ] || PATH=$PATH:/usr/local/cuda/bin
    command -v "${CUDACXX:-nvcc}" >/dev/null ||
        fail "CUDA=1 needs NVIDIA's CUDA toolkit, 12 or newer: put nvcc into PATH, set CUDACXX, or leave CUDA=1 away"
fi
lock_cache "$name"
[ ! -d "$prefix" ] || exit 0

python=$(find_python)
partial=$prefix.partial
rm -rf "$partial"
mkdir -p "$partial"
trap 'rm -rf "$partial"' EXIT
trap 'exit 130' INT TERM

# Without pip's cache: it keeps built wheels under the version alone, whatever the options were. The package alone is
# taken as source; its hash is that of the source anyhow.
build() {
    CMAKE_ARGS=$arguments CMAKE_BUILD_PARALLEL_LEVEL=$(n_jobs $job_kb) CMAKE_GENERATOR=Ninja \
        PIP_CONSTRAINT=$here/constraints-llama.txt \
        "$python" -m pip install --no-deps --require-hashes --no-binary llama-cpp-python --no-cache-dir --no-compile \
        -r "$here/requirements-llama.txt" --target "$partial"
}
minutes=5
[ -z "$cuda" ] || minutes=25
step "building llama.cpp $version ($options), some $minutes minutes" "$LOWBEAM_CACHE/log/$name.log" build
[ -f "$partial/lib/cmake/llama/llama-config.cmake" ] || fail "pip left no CMake package of llama.cpp in $partial"

# The Python part is not used, and a wheel has copies where an install has links: libx.so, libx.so.0, libx.so.0.5.0.
rm -rf "$partial/llama_cpp" "$partial/bin"
for library in "$partial"/lib/lib*.so; do
    real=$(find "$partial/lib" -name "$(basename "$library").*.*.*" | head -n 1)
    [ -n "$real" ] || continue
    for copy in "$library" "$library".[0-9]; do
        [ ! -f "$copy" ] || ln -sf "$(basename "$real")" "$copy"
    done
done
mv "$partial" "$prefix"
