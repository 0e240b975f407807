#!/usr/bin/env bash
# Trains the detector half of the default models: training/train_detector.sh OUT [--resume DIR] [--minutes 9] [options]
# (python3 -m detector.train --help). Needs Python with torch, transformers, safetensors, numpy, Pillow and cv2; nothing
# else of this repository has to be built. What is printed also goes to OUT/train.log.
set -euo pipefail
LOWBEAM_TRAIN_START=$(date +%s.%N)
export LOWBEAM_TRAIN_START PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1
export OPENCV_LOG_LEVEL=ERROR HF_HUB_OFFLINE=1
[ $# -ge 1 ] || { echo "usage: training/train_detector.sh OUT [--resume DIR] [--minutes 9]" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
# --resume's folder is named from where the caller stands.
here=$(pwd)
cd "$(dirname "$0")"
resume=
if [ "${1:-}" = --resume ]; then
    [ $# -ge 2 ] || { echo "train_detector.sh: --resume needs a folder" >&2; exit 2; }
    case $2 in /*) resume=$2 ;; *) resume=$here/$2 ;; esac
    shift 2
fi
"${PYTHON:-python3}" -m detector.train "$out" ${resume:+--resume "$resume"} "$@" 2>&1 | tee "$out/train.log"
