#!/usr/bin/env python3
"""Mean average precision of `lowbeam detect` on decoded videos, by pycocotools.

    make_dataset.py DATA --seeds 3000000000:3000000100 --videos
    detector_map.py DATA --lowbeam build/lowbeam --detector DET.gguf [--box-threshold 0.3] [--samples N] [--out FILE.json]

Every video of DATA/coco.json is given to `lowbeam detect --coco`, which takes the same 8 frames; its boxes are compared
with the truth. A label that DATA has no object of does not count. Needs pycocotools and numpy.
"""
import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time


def detect(args, video, folder):
    out = os.path.join(folder, "coco.json")
    command = [args.lowbeam, "detect", video, "--detector", args.detector, "--coco", out, "--box-threshold",
               str(args.box_threshold), "-n", str(args.n_frames)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr[-2000:]}")
    with open(out, encoding="utf-8") as file:
        return json.load(file)


def join(found, video, number, category):
    """lowbeam's annotations as results of the truth's pictures; [] and the missing frames where there are such."""
    name = os.path.basename(video)
    ours = {}
    for image in found["images"]:
        ours[image["id"]] = number.pop((name, int(image["file_name"][len(name) + 1:])), None)
    if None in ours.values():
        raise SystemExit(f"{video}: lowbeam took frames that coco.json does not have; was it made with another --n-frames?")
    names = {c["id"]: c["name"] for c in found["categories"]}
    return [{"image_id": ours[a["image_id"]], "category_id": category[names[a["category_id"]]], "bbox": a["bbox"],
             "score": a["score"]} for a in found["annotations"]]


def measure(truth, results):
    """({label: AP at IoU 0.5}, {label: AP of IoU 0.5 to 0.95}, {label: recall at IoU 0.5})"""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    import numpy as np
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate(), run.accumulate()
    names = {c["id"]: c["name"] for c in truth["categories"]}
    precision, recall = run.eval["precision"], run.eval["recall"]  # [IoU, recall, label, area, most], [IoU, label, area, most]
    half, whole, share = {}, {}, {}
    for k, label in enumerate(run.params.catIds):
        if (precision[:, :, k, 0, -1] > -1).any():
            half[names[label]] = float(np.mean(precision[0, :, k, 0, -1]))
            whole[names[label]] = float(np.mean(precision[:, :, k, 0, -1]))
            share[names[label]] = float(recall[0, k, 0, -1])
    return half, whole, share


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("data"), ap.add_argument("--lowbeam", default="build/lowbeam"), ap.add_argument("--detector", required=True)
    ap.add_argument("--box-threshold", type=float, default=0.3), ap.add_argument("--samples", type=int, help="first N videos")
    ap.add_argument("--n-frames", type=int, default=8), ap.add_argument("--out", help="the figures as JSON")
    args = ap.parse_args()
    with open(os.path.join(args.data, "coco.json"), encoding="utf-8") as file:
        truth = json.load(file)
    videos = list(dict.fromkeys(image["video"] for image in truth["images"]))[:args.samples]
    truth["images"] = [image for image in truth["images"] if image["video"] in set(videos)]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in kept]
    number = {(os.path.basename(i["video"]), i["frame_index"]): i["id"] for i in truth["images"]}
    category = {c["name"]: c["id"] for c in truth["categories"]}
    results, start = [], time.time()
    with tempfile.TemporaryDirectory() as folder:
        for video in videos:
            results += join(detect(args, os.path.join(args.data, video), folder), video, number, category)
    seconds = time.time() - start
    if number:
        raise SystemExit(f"{len(number)} frames of coco.json were not looked at, the first: {next(iter(number))}")
    if not results:
        raise SystemExit("no box at all was found")
    half, whole, share = measure(truth, results)
    count = {label: sum(a["category_id"] == category[label] for a in truth["annotations"]) for label in half}
    print("| label | objects | AP at IoU 0.5 | recall | AP 0.5 to 0.95 |\n| --- | --- | --- | --- | --- |")
    for label in half:
        print(f"| {label} | {count[label]} | {half[label]:.3f} | {share[label]:.3f} | {whole[label]:.3f} |")
    mean = [sum(x.values()) / len(x) for x in (half, share, whole)]
    print(f"| all | {sum(count.values())} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.3f} |")
    print(f"{len(videos)} videos, {len(truth['images'])} frames, box threshold {args.box_threshold}, {seconds:.1f} s")
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump({"map50": mean[0], "map": mean[2], "ap50": half, "recall": share, "objects": count,
                       "box_threshold": args.box_threshold, "frames": len(truth["images"])}, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
