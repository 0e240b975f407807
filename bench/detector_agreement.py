#!/usr/bin/env python3
"""Does the GPU give the CPU's numbers at full size? One picture through dump_detector on both, every intermediate compared.

    detector_agreement.py "RUN dump_detector" MODEL-f32.gguf MODEL-f16.gguf WORK_DIR [--size 1333x750] [--device cuda0]

The CPU in f32 is the yardstick and its choice of queries is handed to the others, as in tests/checks/check_detector.py.
f32 with --exact must be within 1e-4, f16 within 5e-2 (random weights; it is the printed number that counts).
"""
import argparse
import os
import shlex
import subprocess
import sys

import numpy as np

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ("program", "f32", "f16", "work"):
    ap.add_argument(name)
ap.add_argument("--size", default="1333x750")
ap.add_argument("--device", default="cuda0")
args = ap.parse_args()
width, height = map(int, args.size.split("x"))
case = os.path.join(args.work, "case")
os.makedirs(case, exist_ok=True)
rng = np.random.default_rng(5)
y, x = np.mgrid[0:height, 0:width]
image = np.stack([127 + 90 * np.sin(x / rng.uniform(9, 60) + y / rng.uniform(9, 60)) for _ in range(3)], -1)
np.clip(image + rng.normal(0, 20, image.shape), 0, 255).astype(np.uint8).tofile(os.path.join(case, "image_0.rgb"))
np.array([[width, height]], np.int32).tofile(os.path.join(case, "sizes.i32"))
np.array([101] + [1000 + i if i % 3 else 1012 for i in range(1, 46)] + [102], np.int32).tofile(os.path.join(case, "tokens.i32"))


def run(name, model, *options):
    out = os.path.join(args.work, name)
    os.makedirs(out, exist_ok=True)
    done = subprocess.run([*shlex.split(args.program), model, case, out, *options], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"FAIL {name}: status {done.returncode} {done.stderr[-2000:]}")
        return None
    return {file[:-4]: np.load(os.path.join(out, file)) for file in sorted(os.listdir(out)) if file.endswith(".npy")}


cpu = run("cpu", args.f32)
if cpu is None:
    sys.exit(1)
scores = cpu["scores"].ravel()
n_queries = cpu["boxes"].shape[-2]
choice = os.path.join(args.work, "choice.i32")
np.lexsort((np.arange(len(scores)), -scores))[:n_queries].astype(np.int32).tofile(choice)
failed = False
for name, model, limit, options in (("gpu-f32", args.f32, 1e-4, ["--exact"]), ("gpu-tf32", args.f32, 5e-2, []),
                                    ("gpu-f16", args.f16, 5e-2, []), ("gpu-f16-ggml", args.f16, 1.0, ["--gathers"])):
    gpu = run(name, model, "--device", args.device, "--choice", choice, *options)
    failed |= gpu is None
    if gpu and gpu.keys() != cpu.keys():
        failed = True
        print(f"FAIL {name}: intermediates of one side alone: {' '.join(sorted(gpu.keys() ^ cpu.keys()))}")
    for key in sorted(cpu.keys() & gpu.keys()) if gpu else ():
        a, b = np.asarray(gpu[key], np.float64), np.asarray(cpu[key], np.float64)
        error = np.linalg.norm(a - b) / np.linalg.norm(b) if a.shape == b.shape else float("inf")
        bad = not error <= limit
        failed |= bad
        if bad or key in ("map_0", "map_2", "projected", "encoder_vision_0", "encoder_vision_5", "encoder_text_5", "scores",
                          "decoder_0", "decoder_5", "logits", "boxes"):
            print(f"{'FAIL' if bad else 'ok  '} {name} {key}: {error:.2e} (limit {limit:g})")
    if gpu:
        ours, theirs = (1 / (1 + np.exp(-r["logits"].astype(np.float64))) for r in (gpu, cpu))
        print(f"     {name}: largest difference of a probability {np.abs(ours - theirs).max():.4f}, of a box's number "
              f"{np.abs(gpu['boxes'] - cpu['boxes']).max():.5f}")
sys.exit(failed)
