#!/bin/bash
# Builds and answers the questions of samples/ with the default models: demo.sh FOLDER
. "$(dirname "$0")/common.sh"
cd "$LOWBEAM_TOP"
folder=$1
scripts/build.sh "$folder"

csv=$folder/demo.csv
rm -f "$csv" "${csv%.csv}".db*
# One thread: these models are too small for more to help much, and two that wait for each other on a busy machine take ten
# times as long.
command=("$folder/lowbeam" answer samples/questions.json --videos samples --model models/lowbeam-small.gguf
    --mmproj models/mmproj-lowbeam-small.gguf --threads 1 --out "$csv")
detector=models/grounding-dino-lowbeam-small.gguf
# Signs and lights alone: with the other labels vehicles would take the places of small lights among a frame's five crops.
[ ! -e "$detector" ] || command+=(--detector "$detector" --labels models/labels-lowbeam-small.txt)
echo "+ ${command[*]}"
"${command[@]}"
echo
python3 - samples/questions.json "${csv%.csv}.db" <<'END'
import collections
import json
import math
import re
import sqlite3
import sys
import unicodedata

with open(sys.argv[1], encoding="utf-8") as file:
    asked = {entry["id"]: entry for entry in json.load(file)["data"]}
db = sqlite3.connect(sys.argv[2])
# A video's times stand in the rows of its questions, each with its share.
rows = db.execute("SELECT id, answer, truth, letter_logits, decode_s + detect_s + encode_s + prompt_s + generate_s "
                  "FROM answer ORDER BY question")
with_detector = db.execute("SELECT value FROM run WHERE name = 'detect'").fetchone() == ("there",)


def cut(text, width):
    text = unicodedata.normalize("NFC", text)
    return text.ljust(width) if len(text) <= width else text[:width - 3] + "..."


print(cut("question", 52), cut("answer", 30), "truth", "sure", "   ms")
for key, letter, truth, logits, seconds in rows:
    entry = asked[key]
    powers = [math.exp(value - max(json.loads(logits))) for value in json.loads(logits)]
    sure = f"{100 * powers['ABCDEFGH'.index(letter)] / sum(powers):3.0f} %"
    choice = next((text for text in entry["choices"] if text.startswith(letter + ".")), letter)
    print(cut(entry["question"], 52), cut(choice, 30), (truth or entry["answer"])[0].ljust(5), sure,
          f"{1000 * seconds:5.0f}")
if with_detector:
    print("\nWhat the detector saw and the prompt names, boxes of all frames together:")
    for video, prompt in db.execute("SELECT video_path, prompt FROM answer GROUP BY video_path ORDER BY min(question)"):
        lines = re.findall(r"^Frame\d+: \d+ \((.*)\)$", prompt, re.M)
        seen = collections.Counter(label for line in lines for label in line.split(", "))
        print(f"  {video}: " + (", ".join(f"{n} {label}" for label, n in seen.most_common()) or "nothing"))
END
echo
echo "sure: the answer's share among the probabilities of the letters. ms: with the question's share of its video's time."
echo "The clips are drawn, and the models know drawn scenes alone: docs/default-models.md. README.md says how to run the"
echo "published checkpoints on clips of your own, docs/architecture.md how lowbeam works."
