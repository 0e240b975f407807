#!/usr/bin/env python3
"""What a clip teaches: tokens of its questions, and the classes of the auxiliary losses.

    python3 -m vlm.targets [--clips 3000]       (in training/)  collects the classes and the lengths into classes.json

answers    every text that was a right choice           signs, lights, arrows   their attributes
vehicles   labels that are counted in each cell         facts           truths of the whole clip, with their values
kinds      kinds of questions                           slot, questions sizes of a packed sequence
"""
import argparse
import json
import os

import numpy as np
from PIL import Image

from . import dialogue
from .model import SIZE

CLASSES = os.path.join(dialogue.HERE, "classes.json")
N_FRAMES, GRID, MAX_CHOICES = 8, 8, 4
HELD_OUT = 3_000_000_000  # the first seed that is never trained on
MARKS = ("sign", "light", "arrow")
VEHICLES = ("car", "truck", "motorcycle", "bicycle", "pedestrian")
LISTS = ("answers", "signs", "lights", "arrows", "vehicles", "kinds")


def load_classes(path=CLASSES):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def things(clip, frame):
    """(group, attribute, (x0, y0, x1, y1)) of what is well seen in a frame; group: sign, light, arrow, or one of
    VEHICLES."""
    for thing in clip.objects[frame]:
        if thing["kind"] in MARKS + VEHICLES and thing["visible"] >= 0.5:
            yield thing["kind"], thing["attr"], thing["box"]


def facts(clip):
    """Truths of the whole clip with few values each; what cannot be seen in it is left out."""
    truth = clip.truth
    known = {key: truth[key] for key in ("weather", "time", "turn", "crosser", "lanes", "arrow")}
    known["light"] = " ".join(truth["light"])
    if truth["crosser"] != "none":
        known["crosser_direction"] = truth["crosser_direction"]
    if truth["counted"]:
        known["count_" + truth["counted"][0]] = truth["counted"][1]
    return {key: str(value) for key, value in known.items() if value is not None}


def tiles(clip):
    """[n, s, s, 3] u8 as lowbeam cuts a frame with --max-tiles 1: Pillow's bicubic resize of the whole frame."""
    return np.stack([np.asarray(Image.fromarray(frame).resize((SIZE, SIZE), Image.BICUBIC)) for frame in clip.frames])


def record_type(classes):
    """One clip's numbers beside its tiles. Places count within the question's slot; -1: none."""
    q, s = classes["questions"], classes["slot"]
    return np.dtype([
        ("suffix", np.int16, (q, s)), ("n", np.int16, q), ("letter", np.int16, q), ("right", np.int16, q),
        ("kind", np.int16, q), ("n_choices", np.int16, q), ("answer", np.int16, q), ("ask_at", np.int16, q),
        ("choice_at", np.int16, (q, MAX_CHOICES)),
        *[(mark, np.int16, (N_FRAMES, GRID * GRID)) for mark in MARKS],
        ("vehicle", np.int16, (N_FRAMES, GRID * GRID, len(classes["vehicles"]))),
        ("facts", np.int16, max(1, len(classes["facts"])))])


class Teacher:
    """Turns clips into records."""

    def __init__(self, lines, classes):
        self.lines, self.classes, self.type = lines, classes, record_type(classes)
        self.index = {name: {value: i for i, value in enumerate(classes[name])}
                      for name in LISTS}
        self.fact_index = [(key, {value: i for i, value in enumerate(values)})
                           for key, values in classes["facts"].items()]

    def record(self, clip, rng):
        out = np.zeros((), self.type)
        out["suffix"] = self.lines.id["<|endoftext|>"]
        for name in ("answer", "choice_at", "kind", "facts"):
            out[name] = -1
        self._questions(clip, rng, out)
        self._grids(clip, out)
        known = facts(clip)
        for i, (key, values) in enumerate(self.fact_index):
            out["facts"][i] = values.get(known.get(key), -1)
        return out

    def _questions(self, clip, rng, out):
        questions = list(clip.questions)
        if len(questions) > self.classes["questions"]:
            questions = [questions[i] for i in rng.permutation(len(questions))]
        i = 0
        for question in questions:
            if i == self.classes["questions"] or len(question.choices) > MAX_CHOICES:
                continue
            ids, ask_at, ends = self.lines.suffix(question.text, question.choices)
            if len(ids) + 1 > self.classes["slot"]:
                continue
            letter = self.lines.letter[question.answer]
            out["suffix"][i, :len(ids)], out["suffix"][i, len(ids)] = ids, letter
            out["n"][i], out["letter"][i], out["right"][i] = len(ids), letter, question.answer
            out["kind"][i], out["n_choices"][i] = self.index["kinds"].get(question.kind, -1), len(ends)
            right = dialogue.bare(question.choices[question.answer])
            out["answer"][i], out["ask_at"][i] = self.index["answers"].get(right, -1), ask_at
            out["choice_at"][i, :len(ends)] = ends
            i += 1

    def _grids(self, clip, out):
        """What has its centre in a cell; of two marks of a group in one the larger, of vehicles how many (up to 3)."""
        height, width = clip.frames.shape[1:3]
        for t in range(len(clip.frames)):
            size = {mark: np.zeros(GRID * GRID) for mark in MARKS}
            for group, attribute, (x0, y0, x1, y1) in things(clip, t):
                x, y = (x0 + x1) / 2 / width * GRID, (y0 + y1) / 2 / height * GRID
                if not (0 <= x < GRID and 0 <= y < GRID):
                    continue
                cell, area = int(y) * GRID + int(x), (x1 - x0) * (y1 - y0)
                if group in size:
                    if area > size[group][cell]:
                        size[group][cell] = area
                        out[group][t, cell] = 1 + self.index[group + "s"].get(attribute, -1)
                elif group in self.index["vehicles"]:
                    k = self.index["vehicles"][group]
                    out["vehicle"][t, cell, k] = min(3, out["vehicle"][t, cell, k] + 1)


def collect(n_clips, lines):
    from scene import draw_clip
    found = {name: set() for name in LISTS}
    values, longest, counts = {}, 0, []
    for seed in range(n_clips):
        clip = draw_clip(seed)
        counts.append(len(clip.questions))
        for question in clip.questions:
            found["kinds"].add(question.kind)
            found["answers"].add(dialogue.bare(question.choices[question.answer]))
            longest = max(longest, len(lines.suffix(question.text, question.choices)[0]))
        for frame in range(len(clip.frames)):
            for group, attribute, _ in things(clip, frame):
                if group in MARKS:
                    found[group + "s"].add(attribute)
                else:
                    found["vehicles"].add(group)
        for key, value in facts(clip).items():
            values.setdefault(key, set()).add(value)
    classes = {name: sorted(found[name]) for name in found}
    classes["facts"] = {key: sorted(seen) for key, seen in sorted(values.items()) if 2 <= len(seen) <= 24}
    classes["slot"] = -(-(longest + 1) // 8) * 8
    classes["questions"] = min(8, max(counts))  # few clips have more; then some of theirs, by chance
    print(f"longest question {longest} tokens, questions a clip: mean {np.mean(counts):.2f}, "
          f"{[int((np.array(counts) == k).sum()) for k in range(max(counts) + 1)]}")
    return classes


def main():
    from . import tokenizer
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--clips", type=int, default=3000), ap.add_argument("--out", default=CLASSES)
    ap.add_argument("--tokenizer", default=tokenizer.FOLDER)
    args = ap.parse_args()
    classes = collect(args.clips, dialogue.Dialogue(tokenizer.load(args.tokenizer)))
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump(classes, file, ensure_ascii=False, indent=1)
        file.write("\n")
    print({name: len(value) if hasattr(value, "__len__") else value for name, value in classes.items()})


if __name__ == "__main__":
    main()
