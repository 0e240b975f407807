#!/usr/bin/env python3
"""Do two runs of `lowbeam detect --json` see the same? Box by box, frame by frame, by two measures:

strict, for f32 against f32: as many boxes, the same labels, coordinates within 0.1 pixel per 1000 of the picture's longer
side.
f16, for f16 against f32: the same with 1 pixel per 1000; a box that one run alone has must have its score within 0.005 of
the threshold.

Boxes are paired within 1 pixel per 1000 and the same label, nearest first. Prints how far scores and coordinates of pairs
lie apart, and with -v every box that has no pair.

    detect_agreement.py A.jsonl B.jsonl [--threshold 0.3] [-v]
"""
import argparse
import json

STRICT, F16, NEAR = 0.1, 1.0, 0.005

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("a"), ap.add_argument("b"), ap.add_argument("--threshold", type=float, default=0.3)
ap.add_argument("-v", "--verbose", action="store_true")
args = ap.parse_args()


def read(path):
    with open(path, encoding="utf-8") as file:
        frames = [json.loads(line) for line in file]
    out = {(f["file"].rsplit("/", 1)[-1], f["index"]): f for f in frames}
    assert len(out) == len(frames), f"{path}: a frame twice"
    return out


def distance(a, b, frame):
    """Pixels per 1000 of the longer side."""
    return max(abs(x - y) for x, y in zip(a["box"], b["box"])) * 1000 / max(frame["width"], frame["height"])


def pair(frame, other):
    """[(one, its pair, distance)], and what is left of each."""
    left, right = frame["detections"], other["detections"]
    near = sorted((distance(one, o, frame), i, k) for i, one in enumerate(left) for k, o in enumerate(right)
                  if one["label"] == o["label"])
    pairs, used_left, used_right = [], set(), set()
    for d, i, k in near:
        if d <= F16 and i not in used_left and k not in used_right:
            pairs.append((i, k, d))
            used_left.add(i), used_right.add(k)
    return ([(left[i], right[k], d) for i, k, d in sorted(pairs)],
            [one for i, one in enumerate(left) if i not in used_left],
            [one for k, one in enumerate(right) if k not in used_right],
            [k for _, k, _ in sorted(pairs)])


def quantile(values, q):
    values = sorted(values) or [0.0]
    return values[min(len(values) - 1, int(q * len(values)))]


a, b = read(args.a), read(args.b)
assert a.keys() == b.keys(), "not the same frames"
strict = whole = threshold = order = phrases = n_boxes = 0
apart, scores = [], []
for key, frame in a.items():
    pairs, lost, gained, places = pair(frame, b[key])
    n_boxes += len(frame["detections"])
    apart += [d for _, _, d in pairs]
    scores += [abs(x["score"] - y["score"]) for x, y, _ in pairs]
    lonely = lost + gained
    strict += not lonely and all(d <= STRICT for _, _, d in pairs)
    whole += not lonely
    threshold += bool(lonely) and all(abs(o["score"] - args.threshold) <= NEAR for o in lonely)
    # one over another in the order of two queries that are nearly as good is no other detection; nor is a phrase that
    # has a word more or less, for a word's score at the text threshold
    order += places != sorted(places)
    phrases += any(x["raw_label"] != y["raw_label"] for x, y, _ in pairs)
    if args.verbose:
        for name, boxes in (("A", lost), ("B", gained)):
            for o in boxes:
                print(f"{key[0]} {key[1]}: {name} alone: {o['label']} {o['score']:.4f} "
                      f"[{', '.join(f'{x:.1f}' for x in o['box'])}]")
print(f"{len(a)} frames, {n_boxes} boxes")
print(f"strict (0.1 pixels per 1000): the same in {strict}")
print(f"f16 (1 pixel per 1000): the same in {whole + threshold} ({100 * (whole + threshold) / len(a):.1f} %), of them {threshold} "
      f"but for boxes within {NEAR} of the threshold; {len(a) - whole - threshold} differ")
print(f"pairs: a score {quantile(scores, 0.5):.5f} apart in the median, {quantile(scores, 0.99):.4f} at 99 %, "
      f"{max(scores, default=0):.4f} at most; a coordinate {quantile(apart, 0.5):.4f}, {quantile(apart, 0.99):.3f}, "
      f"{max(apart, default=0):.3f}; the order of boxes differs in {order} frames, raw_label in {phrases}")
