#!/usr/bin/env python3
"""Writes the load that lowbeam is measured with: videos as folders of 9 frames of 1120x448 (noise with a few shapes, PNG),
three questions each. With --max-tiles 10 each frame is a grid of 5x2 and a thumbnail: 88 tiles, 22,528 visual tokens.

    make_load.py DIR [--videos 3] [--questions 3] [--size 1120x448]

A size of 16:9 such as 1920x1080 is for runs with a detector: --max-tiles 8 gives 9 tiles a frame, and two crops make 88.

Needs numpy and Pillow.
"""
import argparse
import json
import pathlib

import numpy as np
from PIL import Image

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("dir", type=pathlib.Path)
ap.add_argument("--videos", type=int, default=3)
ap.add_argument("--questions", type=int, default=3)
ap.add_argument("--size", default="1120x448")
args = ap.parse_args()
width, height = map(int, args.size.split("x"))

rng = np.random.default_rng(0)
data = []
for v in range(args.videos):
    folder = args.dir / f"video_{v}"
    folder.mkdir(parents=True, exist_ok=True)
    for f in range(9):  # of eight, one would be shown twice
        frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        frame[100:300, 100 + 20 * f : 500 + 20 * f] = (30 * v % 256, 200, 25 * f)
        Image.fromarray(frame).save(folder / f"{f:02d}.png", compress_level=1)
    for q in range(args.questions):
        text = "Theo các khung hình trong video, xe đang chạy trên làn đường nào và biển báo nào áp dụng cho xe? " * 4
        data.append({"id": f"v{v}q{q}", "question": f"Câu {q + 1}: {text}", "video_path": f"video_{v}",
                     "choices": ["A. Làn bên trái", "B. Làn bên phải", "C. Làn giữa", "D. Không xác định được"]})
(args.dir / "questions.json").write_text(json.dumps({"__count__": len(data), "data": data}, ensure_ascii=False, indent=1))
