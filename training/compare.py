#!/usr/bin/env python3
"""Holds a run of `lowbeam answer --dump` against the model in PyTorch: tokens, logits, letters.

    lowbeam answer DIR/questions.json --videos DIR --model GGUF_DIR --out DIR/run.csv --dump DIR/dump
    compare.py TRAINED_DIR DIR/questions.json DIR/run.csv DIR/dump

TRAINED_DIR is what training/train.sh wrote. The tokens are made by vlm.dialogue from the question's text, the number of
tiles and the detections, the pictures are the tiles that lowbeam dumped, crops included; the logits are transformers' own in f32, one ordinary dialogue a question. Letters are
the largest logit of the whole vocabulary. Exit status 1 when a token differs or a letter whose margin is clear (more
than six times the default mode's 3e-2 of the largest logit).
"""
import argparse
import csv
import json
import os
import re
import sys
from collections import defaultdict

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from vlm import dialogue, model as M, targets, tokenizer  # noqa: E402


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("trained"), ap.add_argument("questions"), ap.add_argument("csv"), ap.add_argument("dump")
    args = ap.parse_args()
    lines, classes = dialogue.Dialogue(tokenizer.load()), targets.load_classes()
    with open(os.path.join(args.trained, "model.json"), encoding="utf-8") as file:
        about = json.load(file)
    classes = about.get("classes", classes)
    model = M.packed(about["size"], lines, classes)
    M.load(model, args.trained)
    net = model.net.eval()
    net.model.language_model.config._attn_implementation = "sdpa"
    with open(args.questions, encoding="utf-8") as file:
        data = json.load(file)["data"]
    with open(args.csv, encoding="utf-8", newline="") as file:
        answers = {row["id"]: row["answer"] for row in csv.DictReader(file)}

    def plain(name):
        return re.sub(r"[^A-Za-z0-9._-]", "_", name)

    def read(*path):
        return np.load(os.path.join(args.dump, *path))

    embeddings, worst, worst_embedding, wrong_tokens, differ, unclear = {}, 0.0, 0.0, 0, 0, 0
    right = defaultdict(lambda: [0, 0, 0])
    for item in data:
        video = plain(item["video_path"])
        if video not in embeddings:
            with torch.no_grad():
                parts = torch.from_numpy(read(video, "tiles.npy")).split(16)
                seen = torch.cat([model.see(part) for part in parts]).flatten(0, 1)
            theirs = read(video, "embeddings.npy")
            error = np.abs(seen.numpy() - theirs).max() / np.abs(theirs).max()
            embeddings = {video: seen}  # questions of one video follow each other
            prefix = lines.prefix_of(read(video, "tiles_per_frame.npy").tolist(), found_in(args.dump, video))
            worst_embedding = max(error, worst_embedding)
        ids = prefix + lines.suffix(item["question"], item["choices"])[0]
        shown = [-1 if i == lines.id["<IMG_CONTEXT>"] else i for i in ids]
        if shown != read(plain(item["id"]), "tokens.npy").tolist():
            wrong_tokens += 1
            print(f"{item['id']}: the tokens differ")
            continue
        with torch.no_grad():
            rows = net.get_input_embeddings()(torch.tensor(ids))
            rows[torch.tensor(ids) == lines.id["<IMG_CONTEXT>"]] = embeddings[video]
            logits = net(inputs_embeds=rows[None], logits_to_keep=1).logits[0, -1].numpy()
        theirs = read(plain(item["id"]), "logits.npy")
        scale = np.abs(logits).max()
        error = np.abs(logits - theirs).max() / scale
        worst = max(worst, float(error))
        ours = letter_of(lines, logits)
        top = np.sort(logits)[-2:]
        if ours != answers[item["id"]]:
            clear = (top[1] - top[0]) / scale > 6 * 3e-2
            differ, unclear = differ + 1, unclear + (not clear)
            print(f"{item['id']}: PyTorch {ours}, lowbeam {answers[item['id']]}, margin {(top[1] - top[0]) / scale:.3f} of "
                  f"the largest logit")
        truth = item.get("answer")
        if truth is not None:
            letter = truth if truth in dialogue.LETTERS else dialogue.LETTERS[
                [dialogue.bare(choice) for choice in item["choices"]].index(dialogue.bare(truth))]
            row = right[item.get("kind", "all")]
            row[0] += 1
            row[1] += ours == letter
            row[2] += answers[item["id"]] == letter
    n = len(data)
    print(f"{n} questions: tokens differ in {wrong_tokens}; largest difference of embeddings {worst_embedding:.2e}, of "
          f"logits {worst:.2e} (of the largest); letters agree in {n - wrong_tokens - differ} "
          f"({100 * (n - wrong_tokens - differ) / n:.2f} %), {unclear} of the others had no clear margin")
    for kind, (asked, ours, theirs) in sorted(right.items()):
        print(f"{kind:8} {asked:4} questions: PyTorch {100 * ours / asked:.1f} %, lowbeam {100 * theirs / asked:.1f} %")
    return 1 if wrong_tokens or differ > unclear else 0


def found_in(dump, video):
    """Each frame's detections as the prompt has them (src/run/findings.c); None where there was no detector."""
    path = os.path.join(dump, video, "detections.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        frames = json.load(file)["frames"]
    labels = [[one["raw_label"] or one["label"] for one in frame["detections"]] for frame in frames]
    return [f"{len(frame)} ({', '.join(frame)})" if frame else "" for frame in labels]


def letter_of(lines, logits):
    best = int(logits.argmax())
    return dialogue.LETTERS[lines.letter.index(best)] if best in lines.letter else "A"


if __name__ == "__main__":
    sys.exit(main())
