#!/usr/bin/env python3
"""transformers' Grounding DINO, same shapes and labels as bench_detector.c, to stand beside it.

    peer_detector.py HF_DIR [--device cuda] [--dtype float32] [--size 1333x750] [--batch N] [--rounds N] [--threads N]
"""
import argparse
import statistics
import time

import torch
from transformers import GroundingDinoForObjectDetection

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("model")
ap.add_argument("--device", default="cuda")
ap.add_argument("--dtype", default="float32")
ap.add_argument("--size", default="1333x750")
ap.add_argument("--batch", type=int, default=1)
ap.add_argument("--rounds", type=int, default=10)
ap.add_argument("--threads", type=int)
args = ap.parse_args()
if args.threads:
    torch.set_num_threads(args.threads)
width, height = map(int, args.size.split("x"))
dtype, on_gpu = getattr(torch, args.dtype), args.device != "cpu"
model = GroundingDinoForObjectDetection.from_pretrained(args.model).to(args.device, dtype).eval()
tokens = torch.tensor([[101] + [1000 + i if i % 3 else 1012 for i in range(1, 46)] + [102]] * args.batch, device=args.device)
pixels = torch.randn(args.batch, 3, height, width, device=args.device, dtype=dtype)
times = []
with torch.inference_mode():
    for i in range(args.rounds + (3 if on_gpu else 1)):
        if i == 3 and on_gpu:
            torch.cuda.reset_peak_memory_stats()
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        model(pixel_values=pixels, input_ids=tokens)
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
times = times[3 if on_gpu else 1:]
print(f"transformers {args.dtype} batch={args.batch} median_ms={1e3 * statistics.median(times):.3f} "
      f"ms_a_frame={1e3 * statistics.median(times) / args.batch:.3f}")
if on_gpu:
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    print(f"transformers activation_mib={(torch.cuda.max_memory_allocated() - weights) / 2**20:.1f} (without weights)")
