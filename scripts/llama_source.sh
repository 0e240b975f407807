#!/bin/bash
# Unpacks, from the same pinned source distribution as llama.sh builds, what makes test models: llama.cpp's converter and
# its vocabularies; and the header of ggml's that tests/nn/fake_gpu.c needs and that is not installed. Prints the
# folder. Kept in the cache folder.
. "$(dirname "$0")/common.sh"

requirements=$LOWBEAM_TOP/scripts/requirements-llama.txt
version=$(sed -n 's/^llama-cpp-python==\([^ ]*\).*/\1/p' "$requirements")
name=llama-cpp-$version-source-$(hash_of "$requirements" "$LOWBEAM_TOP/scripts/llama_source.sh")
folder=$LOWBEAM_CACHE/$name
echo "$folder"
[ ! -d "$folder" ] || exit 0

lock_cache "$name"
[ ! -d "$folder" ] || exit 0
python=$(find_python)
partial=$folder.partial
rm -rf "$partial"
mkdir -p "$partial"
trap 'rm -rf "$partial"' EXIT
trap 'exit 130' INT TERM

fetch() {
    PIP_CONSTRAINT=$LOWBEAM_TOP/scripts/constraints-llama.txt "$python" -m pip download --no-deps --require-hashes \
        --no-binary llama-cpp-python --no-cache-dir -r "$requirements" -d "$partial/download"
}
step "fetching llama.cpp's sources" "$LOWBEAM_CACHE/log/$name.log" fetch
top=llama_cpp_python-$version/vendor/llama.cpp
tar -xzf "$partial"/download/*.tar.gz -C "$partial" --strip-components 3 --wildcards "$top/convert_hf_to_gguf.py" \
    "$top/conversion/*" "$top/gguf-py/*" "$top/models/ggml-vocab-qwen2*" \
    "$top/models/ggml-vocab-bert-bge.gguf" "$top/ggml/src/ggml-backend-impl.h" "$top/LICENSE"
rm -rf "$partial/download"
mv "$partial" "$folder"
