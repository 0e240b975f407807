#!/bin/bash
# The checks against the originals: check.sh FOLDER RESULTS. Runs each tests/checks/check_*.py in a virtual environment
# of their own and appends "pass NAME", "fail NAME" or "skip NAME: reason" to RESULTS. A check gets the options that it
# names: --build FOLDER, --lowbeam PROGRAM, --models FOLDER, --llama-cpp FOLDER. Exit status 77 of a check: skipped.
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
folder=$1
results=$2
shopt -s nullglob
checks=(tests/checks/check_*.py)

skip_all() {
    for check in "${checks[@]}"; do
        echo "skip $(basename "$check" .py): $1" >>"$results"
    done
    exit 0
}
python=$(LOWBEAM_TAIL=1 scripts/checks_venv.sh) ||
    skip_all "because the Python packages could not be installed, see $LOWBEAM_CACHE/log"
source=$(LOWBEAM_TAIL=1 scripts/llama_source.sh) ||
    skip_all "because llama.cpp's sources could not be fetched, see $LOWBEAM_CACHE/log"
export LOWBEAM_LLAMA_SRC=$source

# Small random models in the published layout, made again when a script that makes them changes.
models=$LOWBEAM_CACHE/check-models-$(cat tools/make_test_models.py tools/qwen2_vocab.py scripts/requirements-*.txt |
    sha256sum | cut -c1-8)
make_models() {
    # Those of older scripts, 1 GB each; not at once, since another checkout may be using them.
    find "$LOWBEAM_CACHE" -maxdepth 1 -name 'check-models-*' -mtime +7 -exec rm -rf {} +
    rm -rf "$models.partial"
    "$python" tools/make_test_models.py "$models.partial" --llama-cpp "$source" --kind all &&
        mv "$models.partial" "$models"
}
have_models() {
    [ ! -d "$models" ] || return 0
    lock_cache models
    [ -d "$models" ] || step "making small random models, some 3 minutes" "$folder/log/models.log" make_models
}
have_models || true

for check in "${checks[@]}"; do
    name=$(basename "$check" .py)
    # Some leave their options to common.py.
    sources=("$check")
    ! grep -qE '^(import common|from common import)' "$check" || sources+=(tests/checks/common.py)
    if grep -qE "[\"']--models[\"']" "${sources[@]}" && [ ! -d "$models" ]; then
        echo "fail $name: its models could not be made, see $folder/log/models.log" >>"$results"
        continue
    fi
    options=()
    while read -r option value; do
        if grep -qE "[\"']${option}[\"']" "${sources[@]}"; then
            options+=("$option" "$value")
        fi
    done <<END
--build $folder
--lowbeam $folder/lowbeam
--models $models
--llama-cpp $source
END
    log=$folder/log/$name.log
    status=0
    step "$name" "$log" "$python" "$check" "${options[@]}" || status=$?
    case $status in
    0)
        echo "pass $name" >>"$results"
        # Its largest errors: all lines of a check that prints few, the last one of a check that prints many.
        if [ "$(wc -l <"$log")" -le 15 ]; then sed 's/^/    /' "$log"; else tail -n 1 "$log" | sed 's/^/    /'; fi
        ;;
    77) echo "skip $name: $(tail -n 1 "$log")" >>"$results" ;;
    *) echo "fail $name: see $log" >>"$results" ;;
    esac
done
