#!/usr/bin/env python3
"""The trained detector in PyTorch and in lowbeam on the same pictures: boxes, scores and labels.

    compare_detector.py HF_DIR DET.gguf PICTURES --lowbeam build/lowbeam

HF_DIR is what detector/export.py wrote, DET.gguf what `lowbeam convert` made of it, PICTURES a folder of PNG files
(make_dataset.py --frames). Prints the largest differences; fails where one has a box that the other lacks though its score
is more than 0.01 above the threshold, or where a box departs by more than a pixel. f32 files should agree to 1e-3.
"""
import argparse
import json
import os
import subprocess
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from detector import model as M, score as S, vocabulary as V  # noqa: E402

THRESHOLD, MARGIN = 0.3, 0.01


def reference(folder, paths):
    """[(scores, labels, boxes in pixels)] as transformers computes them from its own image processor's pixels."""
    from PIL import Image
    from transformers import GroundingDinoForObjectDetection
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
    net = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()
    processor = GroundingDinoImageProcessorPil.from_pretrained(folder)
    prompt, out = M.Prompt(V.LABELS, "cpu"), []
    for path in paths:
        image = Image.open(path).convert("RGB")
        with torch.no_grad():
            result = net(**processor(images=image, return_tensors="pt"), input_ids=prompt.tokens)
        t = prompt.tokens.shape[1]
        layers = [(result.logits[..., :t], result.pred_boxes, None)]
        score, label, box = S.detections({"layers": layers}, prompt, box_count(result))
        box = box[0].numpy()
        corners = np.concatenate((box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2), 1)
        out.append((score[0].numpy(), label[0].numpy(), corners * np.array([*image.size, *image.size])))
    return out


def box_count(result):
    return result.pred_boxes.shape[1]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder"), ap.add_argument("gguf"), ap.add_argument("pictures")
    ap.add_argument("--lowbeam", default="build/lowbeam"), ap.add_argument("--samples", type=int, default=40)
    args = ap.parse_args()
    paths = sorted(os.path.join(args.pictures, n) for n in os.listdir(args.pictures) if n.endswith(".png"))[:args.samples]
    ours = []
    for path in paths:
        done = subprocess.run([args.lowbeam, "detect", path, "--detector", args.gguf, "--json", "--box-threshold",
                               str(THRESHOLD - MARGIN)], stdout=subprocess.PIPE, text=True, check=True)
        ours.append(json.loads(done.stdout)["detections"])
    worst, lacking, others, n = {"score": 0.0, "pixels": 0.0}, [], 0, 0
    for path, (score, label, box), found in zip(paths, reference(args.folder, paths), ours):
        for i in np.flatnonzero(score > THRESHOLD + MARGIN):
            n += 1
            near = [(np.abs(np.array(d["box"]) - box[i]).max(), d) for d in found]
            pixels, d = min(near, key=lambda x: x[0], default=(np.inf, None))
            if not pixels < 5:
                lacking.append(f"{os.path.basename(path)}: {V.LABELS[label[i]]} {score[i]:.3f} at {box[i].round(1)}")
                continue
            worst["score"] = max(worst["score"], abs(d["score"] - float(score[i])))
            worst["pixels"] = max(worst["pixels"], float(pixels))
            others += d["label"] != V.LABELS[label[i]]
    print(f"{len(paths)} pictures, {n} boxes: largest difference {worst['pixels']:.4f} pixels, score {worst['score']:.5f}; "
          f"other label {others}, lacking {len(lacking)}")
    for line in lacking[:20]:
        print("lacking " + line)
    return 1 if n == 0 or lacking or worst["pixels"] > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
