#!/usr/bin/env python3
"""What a clip teaches: tokens of its questions, and the classes of the auxiliary losses.

    python3 -m vlm.targets [--clips 3000]       (in training/)  collects the classes and the lengths into classes.json

answers    every text that was a right choice           signs, lights, arrows   their attributes
vehicles   labels that are counted in each cell         facts           truths of the whole clip, with their values
kinds      kinds of questions                           slot, questions sizes of a packed sequence

A clip's pictures come as views: (frame, region of it, is it a crop), one a tile, in the order in which they enter the
prompt: a frame's tiles, its thumbnail, its crops.
"""
import argparse
import json
import math
import os

import numpy as np
from PIL import Image

from . import detections, dialogue
from .model import SIZE
from .shapes import MIXES, SHAPES

CLASSES = os.path.join(dialogue.HERE, "classes.json")
GRID, MAX_CHOICES, SEGMENTS = 8, 4, 4
# Pixels of a tile below which a mark cannot be made out there, and so is not asked for: width, height.
READABLE = {"sign": (7, 12), "light": (3, 16), "arrow": (0, 0)}
IGNORED = -1
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


def grid_of(width, height, max_tiles):
    """(columns, rows) of lowbeam's tiles (src/image/tiles.c): the shape nearest to the frame's; of two as near the later
    one where the frame has more than half of its pixels."""
    shapes = sorted(((i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles + 1) if i * j <= max_tiles),
                    key=lambda shape: shape[0] * shape[1])
    best, least = (1, 1), float("inf")
    for i, j in shapes:
        difference = abs(width / height - i / j)
        if difference < least or difference == least and width * height > 0.5 * SIZE * SIZE * i * j:
            best, least = (i, j), difference
    return best


class Pictures:
    """Tiles of a clip, as Pillow cuts them and lowbeam does; each is made once, whatever it is used for."""

    def __init__(self, clip):
        self.clip, self.cut = clip, {}
        self.height, self.width = clip.frames.shape[1:3]
        self.image = [Image.fromarray(frame) for frame in clip.frames]

    def tile(self, frame, region, is_crop):
        """[s, s, 3] u8. region: x0, y0, x1, y1; what lies outside the frame is black."""
        key = (frame, region)
        if key not in self.cut:
            image = self.image[frame]
            whole = region == (0, 0, self.width, self.height)
            self.cut[key] = np.asarray((image if whole else image.crop(region)).resize((SIZE, SIZE), Image.BICUBIC))
        return self.cut[key]

    def grid(self, frame, max_tiles):
        """[(region, tile)] of a frame without its crops: the whole frame resized, then cut, and a thumbnail."""
        columns, rows = grid_of(self.width, self.height, max_tiles)
        whole = (0, 0, self.width, self.height)
        out = []
        if columns * rows > 1:
            if (frame, columns, rows) not in self.cut:
                self.cut[frame, columns, rows] = np.asarray(
                    self.image[frame].resize((SIZE * columns, SIZE * rows), Image.BICUBIC))
            big = self.cut[frame, columns, rows]
            for j in range(rows):
                for i in range(columns):
                    region = (i * self.width / columns, j * self.height / rows, (i + 1) * self.width / columns,
                              (j + 1) * self.height / rows)
                    out.append((region, big[j * SIZE:(j + 1) * SIZE, i * SIZE:(i + 1) * SIZE]))
        return out + [(whole, self.tile(frame, whole, False))]

    def views(self, max_tiles=1, found=None):
        """([(frame, region, is it a crop)], [tile], tiles a frame). found: a frame's [(label, box)], see detections.py."""
        views, tiles, counts = [], [], []
        for frame in range(len(self.image)):
            own = [((frame, region, False), tile) for region, tile in self.grid(frame, max_tiles)]
            for _, box in found[frame] if found else ():
                region = tuple(int(v) for v in box)  # toward zero
                own.append(((frame, region, True), self.tile(frame, region, True)))
            views += [view for view, _ in own]
            tiles += [tile for _, tile in own]
            counts.append(len(own))
        return views, tiles, counts


def record_type(classes, shape):
    """One clip's numbers beside its tiles. Places count within the question's slot; -1: none. segment: which quarter of
    the clip a tile shows whole; -1: part of a frame."""
    q, s = classes["questions"], classes["slot"]
    return np.dtype([
        ("prefix", np.int16, shape.prefix), ("length", np.int16), ("n_tiles", np.int16), ("mix", np.int16),
        ("segment", np.int16, shape.tiles),
        ("suffix", np.int16, (q, s)), ("n", np.int16, q), ("letter", np.int16, q), ("right", np.int16, q),
        ("kind", np.int16, q), ("n_choices", np.int16, q), ("answer", np.int16, q), ("ask_at", np.int16, q),
        ("choice_at", np.int16, (q, MAX_CHOICES)),
        *[(mark, np.int16, (shape.tiles, GRID * GRID)) for mark in MARKS],
        ("vehicle", np.int16, (shape.tiles, GRID * GRID, len(classes["vehicles"]))),
        ("facts", np.int16, max(1, len(classes["facts"])))])


class Teacher:
    """Turns clips into tiles and records."""

    def __init__(self, lines, classes):
        self.lines, self.classes = lines, classes
        self.types = {name: record_type(classes, shape) for name, shape in SHAPES.items()}
        self.index = {name: {value: i for i, value in enumerate(classes[name])}
                      for name in LISTS}
        self.fact_index = [(key, {value: i for i, value in enumerate(values)})
                           for key, values in classes["facts"].items()]

    def show(self, pictures, mix, found, rng, place):
        """Writes the tiles of the clip, shown as MIXES says, to place [tiles, s, s, 3] and gives the record; None where it
        has more of them, or of text, than its size allows. found: detections, frame by frame."""
        how, clip = MIXES[mix], pictures.clip
        shape = SHAPES[how.shape]
        views, tiles, counts = pictures.views(how.max_tiles, found if how.detector else None)
        texts = [detections.text(one) for one in found] if how.detector else None
        prefix = self.lines.prefix_of(counts, texts)
        if len(views) > shape.tiles or len(prefix) > shape.prefix:
            return None
        for i, tile in enumerate(tiles):
            place[i] = tile
        out = np.zeros((), self.types[how.shape])
        out["prefix"] = out["suffix"] = self.lines.id["<|endoftext|>"]
        out["prefix"][:len(prefix)], out["length"], out["n_tiles"] = prefix, len(prefix), len(views)
        out["mix"], out["segment"] = list(MIXES).index(mix), -1
        whole = (0, 0, pictures.width, pictures.height)
        for i, (frame, region, is_crop) in enumerate(views):
            if region == whole and not is_crop:
                out["segment"][i] = frame * SEGMENTS // len(clip.frames)
        for name in ("answer", "choice_at", "kind", "facts"):
            out[name] = -1
        self._questions(clip, rng, out)
        self._grids(clip, views, out)
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

    def _grids(self, clip, views, out):
        """What a tile shows in each cell. Marks fill the middle half of their box, the larger of two; of vehicles how many
        have their centre there (up to 3), in crops not asked. IGNORED: too small to tell, and what is no tile."""
        seen = [list(things(clip, t)) for t in range(len(clip.frames))]
        for name in (*MARKS, "vehicle"):
            out[name][len(views):] = IGNORED
        for i, (frame, (rx0, ry0, rx1, ry1), is_crop) in enumerate(views):
            kx, ky = GRID / (rx1 - rx0), GRID / (ry1 - ry0)
            size = {}
            if is_crop:
                out["vehicle"][i] = IGNORED
            else:  # a panel is no light where that can be seen: in crops
                for x0, y0, x1, y1 in clip.decoys[frame]:
                    x, y = int(((x0 + x1) / 2 - rx0) * kx), int(((y0 + y1) / 2 - ry0) * ky)
                    if 0 <= x < GRID and 0 <= y < GRID:
                        out["light"][i, y * GRID + x] = IGNORED
            for group, attribute, (x0, y0, x1, y1) in seen[frame]:
                x0, y0, x1, y1 = (x0 - rx0) * kx, (y0 - ry0) * ky, (x1 - rx0) * kx, (y1 - ry0) * ky
                x, y = (x0 + x1) / 2, (y0 + y1) / 2
                if not (0 <= x < GRID and 0 <= y < GRID):
                    continue
                if group not in MARKS:
                    if not is_crop and group in self.index["vehicles"]:
                        k, cell = self.index["vehicles"][group], int(y) * GRID + int(x)
                        out["vehicle"][i, cell, k] = min(3, out["vehicle"][i, cell, k] + 1)
                    continue
                w, h = x1 - x0, y1 - y0
                least = READABLE[group]
                clear = w * SIZE / GRID >= least[0] and h * SIZE / GRID >= least[1]
                value = 1 + self.index[group + "s"].get(attribute, -1) if clear else IGNORED
                for row in self._middle(y, h):
                    for column in self._middle(x, w):
                        key = (group, row * GRID + column)
                        if w * h > size.get(key, 0.0):
                            size[key] = w * h
                            out[group][i, key[1]] = value

    @staticmethod
    def _middle(at, length):
        """Cells whose centre lies in the middle half of a stretch, and the one that holds its own centre."""
        first, last = max(0, math.ceil(at - length / 4 - 0.5)), min(GRID - 1, math.floor(at + length / 4 - 0.5))
        return range(min(first, int(at)), max(last, int(at)) + 1)


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
