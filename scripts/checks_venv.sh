#!/bin/bash
# Makes the virtual environment of the checks against the originals (PyTorch, transformers, ...; some 6 GB) in the cache
# folder, where it is not there yet, and prints its python.
. "$(dirname "$0")/common.sh"

requirements=$LOWBEAM_TOP/scripts/requirements-checks.txt
python=$(find_python)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
name=checks-python$version-$(hash_of "$requirements")
folder=$LOWBEAM_CACHE/$name
echo "$folder/bin/python"
[ ! -f "$folder/complete" ] || exit 0

lock_cache "$name"
[ ! -f "$folder/complete" ] || exit 0
# A virtual environment cannot be moved, so a file inside it says that it is complete.
make_venv() {
    rm -rf "$folder"
    "$python" -m venv "$folder" &&
        "$folder/bin/python" -m pip install --no-deps --only-binary :all: --no-cache-dir --no-compile -r "$requirements" &&
        touch "$folder/complete"
}
step "installing the checks' Python packages, some 3 minutes" "$LOWBEAM_CACHE/log/$name.log" make_venv
