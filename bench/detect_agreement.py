#!/usr/bin/env python3
"""Do two runs of `lowbeam detect --json` see the same? Frame by frame: as many boxes, the same labels in the same order,
coordinates within 0.1 pixel per 1000, and where a box is in one run only, its score within 0.005 of the threshold.

    detect_agreement.py A.jsonl B.jsonl [--threshold 0.3]
"""
import argparse
import json

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("a"), ap.add_argument("b"), ap.add_argument("--threshold", type=float, default=0.3)
args = ap.parse_args()


def read(path):
    with open(path, encoding="utf-8") as file:
        frames = [json.loads(line) for line in file]
    return {(f["file"].rsplit("/", 1)[-1], f["index"]): f for f in frames}


def distance(a, b):
    return max(abs(x - y) for x, y in zip(a["box"], b["box"]))


a, b = read(args.a), read(args.b)
assert a.keys() == b.keys(), "not the same frames"
same = near = order = 0
worst_box = worst_score = 0.0
n_boxes = 0
for key, frame in a.items():
    limit = 0.1 * max(frame["width"], frame["height"]) / 1000
    left, rest, ok, kept = list(b[key]["detections"]), [], True, []
    n_boxes += len(frame["detections"])
    for one in frame["detections"]:
        match = [o for o in left if o["label"] == one["label"] and distance(one, o) <= 4 * limit]
        if not match:
            rest.append(one)
            continue
        best = min(match, key=lambda o: distance(one, o))
        left.remove(best)
        kept.append(best)
        worst_box = max(worst_box, distance(one, best) / max(frame["width"], frame["height"]) * 1000)
        worst_score = max(worst_score, abs(one["score"] - best["score"]))
        ok &= distance(one, best) <= limit
    lonely = rest + left
    # one over another in the order of two scores that are nearly equal is no other detection
    order += kept != [o for o in b[key]["detections"] if o in kept]
    same += ok and not lonely
    near += ok and bool(lonely) and all(abs(o["score"] - args.threshold) <= 0.005 for o in lonely)
print(f"{len(a)} frames, {n_boxes} boxes: the same in {same}, in {near} others only boxes within 0.005 of the threshold differ; "
      f"{len(a) - same - near} differ otherwise; order differs in {order}; largest difference of a score {worst_score:.4f}, of a "
      f"coordinate {worst_box:.3f} pixels per 1000")
