#!/usr/bin/env python3
"""Writes drawn clips with questions as files: what lowbeam answers, and the truth to compare with.

    make_dataset.py OUT --seeds A:B [--videos] [--frames] [--questions N] [--n-frames 8] [--size 800x450] [--crf 23]
                    [--near]

OUT/questions.json   the contest's form: {"__count__": N, "data": [{id, question, choices, video_path, answer (the right
                     choice's text), support_frames (seconds), kind}]}; N questions spread over the clips, the kinds as
                     even as they allow, or all without --questions
OUT/videos/*.mp4     with --videos: H.264 (by the ffmpeg program; MPEG-4 by OpenCV where there is none), 12.5 frames/s
OUT/frames/*.png     with --frames: the frames that lowbeam takes from each clip, before video compression
OUT/coco.json        boxes of those frames, COCO's form; each image also names its video and the frame's index there
OUT/truth.json       the facts of each clip

Training takes seeds from 0 to 2^31 - 1, held-out sets begin at 3000000000, samples/ at 3500000000.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import cv2

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from scene import HEIGHT, WIDTH, all_frames, draw_clip  # noqa: E402

LABELS = ("traffic sign", "traffic light", "traffic signal", "lane arrow", "road marking", "lane marking", "vehicle",
          "car", "truck", "motorcycle", "bicycle", "pedestrian", "stop sign", "speed limit sign")
RATE = "25/2"


def write_video(path, seed, width, height, crf, far):
    """All frames of the clip as a video file; the frames that draw_clip gives are among them."""
    if shutil.which("ffmpeg"):
        command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s",
                   f"{width}x{height}", "-r", RATE, "-i", "-", "-an", "-c:v", "libx264", "-preset", "medium", "-crf",
                   str(crf), "-pix_fmt", "yuv420p", "-threads", "1", "-movflags", "+faststart", path]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as program:
            for _, image, _ in all_frames(seed, width, height, far):
                program.stdin.write(image.tobytes())
            program.stdin.close()
            if program.wait():
                raise SystemExit(f"{path}: ffmpeg could not write it (exit status {program.returncode})")
        return
    out = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 12.5, (width, height))
    if not out.isOpened():
        raise SystemExit(f"{path}: neither the ffmpeg program nor OpenCV can write videos here; install ffmpeg")
    for _, image, _ in all_frames(seed, width, height, far):
        out.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    out.release()


def pick(questions, quota, used):
    """quota questions of the clip, of the kinds that the set has least of so far."""
    chosen = sorted(range(len(questions)), key=lambda i: (used[questions[i].kind], i))[:quota]
    for i in chosen:
        used[questions[i].kind] += 1
    return [questions[i] for i in sorted(chosen)]


def entry(name, video, q):
    return {"id": f"{name}_{q.kind}", "question": q.text, "choices": q.choices, "video_path": video,
            "answer": q.choices[q.answer], "support_frames": q.support_frames, "kind": q.kind}


def parse(argv):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--seeds", required=True, metavar="A:B", help="clips A to B - 1")
    p.add_argument("--videos", action="store_true")
    p.add_argument("--frames", action="store_true")
    p.add_argument("--questions", type=int, help="how many in all (default: all)")
    p.add_argument("--n-frames", type=int, default=8)
    p.add_argument("--size", default=f"{WIDTH}x{HEIGHT}")
    p.add_argument("--near", action="store_true", help="nothing that is asked about is small: clips that need no detector")
    p.add_argument("--crf", type=int, default=23, help="H.264 quality, lower is better (default 23)")
    args = p.parse_args(argv)
    try:
        args.first, args.last = (int(x) for x in args.seeds.split(":"))
        args.width, args.height = (int(x) for x in args.size.split("x"))
    except ValueError:
        p.error("--seeds takes A:B and --size WIDTHxHEIGHT, whole numbers")
    if args.first >= args.last:
        p.error("--seeds A:B needs A < B")
    if args.width % 2 or args.height % 2:
        p.error("--size: both must be even for H.264")
    return args


def main(argv=None):
    args = parse(argv)
    for name, wanted in (("", True), ("videos", args.videos), ("frames", args.frames)):
        if wanted:
            os.makedirs(os.path.join(args.out, name), exist_ok=True)
    data, spare, facts, used, n_clips = [], [], {}, Counter(), args.last - args.first
    coco = {"images": [], "annotations": [], "categories": [{"id": i + 1, "name": n} for i, n in enumerate(LABELS)]}
    for n, seed in enumerate(range(args.first, args.last)):
        clip = draw_clip(seed, args.n_frames, args.width, args.height, not args.near)
        name = f"clip_{seed}"
        video = f"videos/{name}.mp4"
        questions = clip.questions
        if args.questions is not None:
            # What a clip with few questions cannot give, the next ones give.
            questions = pick(questions, (n + 1) * args.questions // n_clips - len(data), used)
        data += [entry(name, video, q) for q in questions]
        spare += [(name, video, q) for q in clip.questions if not any(q is taken for taken in questions)]
        facts[name] = clip.truth
        for f, boxes in enumerate(clip.boxes):
            image = {"id": len(coco["images"]) + 1, "file_name": f"{name}_{f:02d}.png", "width": args.width,
                     "height": args.height, "video": video, "frame_index": round(clip.times[f] * clip.fps)}
            coco["images"].append(image)
            for label, x0, y0, x1, y1 in boxes:
                box = [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)]
                coco["annotations"].append({"id": len(coco["annotations"]) + 1, "image_id": image["id"],
                                            "category_id": LABELS.index(label) + 1, "bbox": box,
                                            "area": round(box[2] * box[3], 2), "iscrowd": 0})
            if args.frames:
                path = os.path.join(args.out, "frames", image["file_name"])
                if not cv2.imwrite(path, cv2.cvtColor(clip.frames[f], cv2.COLOR_RGB2BGR)):
                    raise SystemExit(f"{path}: could not be written")
        if args.videos:
            write_video(os.path.join(args.out, video), seed, args.width, args.height, args.crf, not args.near)
    while args.questions is not None and len(data) < args.questions and spare:
        # The last clips had too few: earlier ones give the rest.
        name, video, q = spare.pop(min(range(len(spare)), key=lambda i: used[spare[i][2].kind]))
        used[q.kind] += 1
        data.append(entry(name, video, q))
    for name, what in (("questions", {"__count__": len(data), "data": data}), ("coco", coco), ("truth", facts)):
        with open(os.path.join(args.out, name + ".json"), "w", encoding="utf-8") as out:
            json.dump(what, out, ensure_ascii=False, indent=None if name == "coco" else 1)
            out.write("\n")
    kinds = Counter(d["kind"] for d in data)
    print(f"{n_clips} clips, {len(data)} questions: " + ", ".join(f"{k} {v}" for k, v in sorted(kinds.items())))


if __name__ == "__main__":
    main()
