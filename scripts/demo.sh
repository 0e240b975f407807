#!/bin/bash
# Builds, writes a small random model where it is not there yet, and answers the questions of samples/: demo.sh FOLDER
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
folder=$1
scripts/build.sh "$folder"
source=$(scripts/llama_source.sh)

# One folder for each version of the script, so that an old model is never taken for a new one.
model=$folder/demo-model-$(cat tools/make_demo_model.py tools/gguf_file.py tools/qwen2_vocab.py | sha256sum | cut -c1-8)
make_model() {
    rm -rf "$model.partial"
    "$(find_python)" tools/make_demo_model.py "$model.partial" --vocab "$source/models/ggml-vocab-qwen2.gguf" &&
        mv "$model.partial" "$model"
}
[ -d "$model" ] || step "writing a small random model" "$folder/log/demo-model.log" make_model
mmproj=$(find "$model" -name '*mmproj*.gguf' | head -n 1)
llm=$(find "$model" -name '*.gguf' ! -name '*mmproj*' | head -n 1)

csv=$folder/demo.csv
rm -f "$csv" "${csv%.csv}".db*
command=("$folder/lowbeam" answer samples/questions.json --videos samples --model "$llm" --mmproj "$mmproj"
    --max-new-tokens 16 --out "$csv")
echo "+ ${command[*]}"
status=0
"${command[@]}" || status=$?
# 3: finished, with some questions answered by fallback, which is what random text mostly comes to.
[ $status -eq 0 ] || [ $status -eq 3 ] || exit $status
echo
echo "$csv, without its last column, the prompt:"
python3 - "$csv" <<'END'
import csv
import sys
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    for row in csv.reader(file):
        print(",".join(cell.replace("\n", " ") for cell in row[:-1]))
END
echo
echo "The model is random and small, made to show the way of the data: its answers mean nothing."
echo "README.md says how to run the published checkpoints on clips of your own."
