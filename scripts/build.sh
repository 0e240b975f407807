#!/bin/bash
# Installs what is missing and builds lowbeam: build.sh FOLDER [CMake arguments]
# From the environment: CUDA=1 and CUDA_ARCHS, LLAMA_PREFIX or CMAKE_PREFIX_PATH (an installed llama.cpp).
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
# The make that called this is not the one that builds.
unset MAKEFLAGS MAKELEVEL MFLAGS
folder=$1
shift

has_llama() {
    local part
    while read -r part; do
        if [ -n "$part" ] && [ -n "$(find "$part"/lib*/ "$part"/share -maxdepth 4 -iname 'llama*-config.cmake' \
            -o -maxdepth 4 -name 'llamaConfig.cmake' 2>/dev/null)" ]; then
            return 0
        fi
    done < <(tr ':;' '\n\n' <<<"$1")
    return 1
}

scripts/setup.sh
cuda=OFF
[ "${CUDA:-0}" = 0 ] || cuda=ON
given=$(tr ':' ';' <<<"${LLAMA_PREFIX:-}${LLAMA_PREFIX:+:}${CMAKE_PREFIX_PATH:-}")
if [ -n "${LLAMA_PREFIX:-}" ] && ! has_llama "$LLAMA_PREFIX"; then
    fail "LLAMA_PREFIX=$LLAMA_PREFIX has no CMake package of llama.cpp (lib/cmake/llama/llama-config.cmake)"
fi
if has_llama "$given"; then
    arguments=("-DCMAKE_PREFIX_PATH=$given" -DLOWBEAM_BUNDLE_LLAMA=OFF)
else
    options=()
    [ $cuda = OFF ] || options=(--cuda)
    prefix=$(scripts/llama.sh "${options[@]}")
    arguments=("-DCMAKE_PREFIX_PATH=$prefix${given:+;$given}" -DLOWBEAM_BUNDLE_LLAMA=ON)
fi
# The cards that our own kernels are compiled for; without this CMake's list (cmake/cuda.cmake).
[ $cuda = OFF ] || [ -z "${CUDA_ARCHS:-}" ] || arguments+=("-DCMAKE_CUDA_ARCHITECTURES=$(tr ', ' ';;' <<<"$CUDA_ARCHS")")
step "configuring $folder" "$folder/log/configure.log" cmake -S . -B "$folder" "-DLOWBEAM_CUDA=$cuda" "${arguments[@]}" "$@"
LOWBEAM_TAIL=80 step "building $folder" "$folder/log/build.log" cmake --build "$folder" --parallel "$(n_jobs 700000)"
