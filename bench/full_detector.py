#!/usr/bin/env python3
"""Writes a Grounding DINO checkpoint of the published sizes with random weights, as tools/make_detector_models.py does small ones.

    full_detector.py OUT_DIR [--kind tiny|base]

Time and memory do not depend on the weights. Needs torch and transformers.
"""
import argparse
import json
import os
import sys

import torch
from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
from make_detector_models import MEAN, STD, randomize, vocabulary  # noqa: E402

SWIN = {"tiny": dict(window_size=7, image_size=224, embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]),
        "base": dict(window_size=12, image_size=384, embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32])}


def build(kind, seed=7):
    torch.manual_seed(seed)
    config = GroundingDinoConfig(backbone_config=SwinConfig(out_indices=[2, 3, 4], **SWIN[kind]), use_timm_backbone=False,
                                 use_pretrained_backbone=False)
    model = GroundingDinoForObjectDetection(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            randomize(name, p)
    return model


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--kind", default="tiny", choices=list(SWIN))
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    model = build(args.kind)
    model.save_pretrained(args.out)
    words = vocabulary(None)
    words += [f"w{i}" for i in range(len(words), model.config.text_config.vocab_size)]
    with open(os.path.join(args.out, "vocab.txt"), "w", encoding="utf-8") as file:
        file.write("".join(word + "\n" for word in words))
    with open(os.path.join(args.out, "preprocessor_config.json"), "w") as file:
        json.dump({"image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 255, "resample": 2, "do_normalize": True,
                   "do_pad": True, "do_rescale": True, "do_resize": True, "format": "coco_detection",
                   "image_processor_type": "GroundingDinoImageProcessor",
                   "size": {"longest_edge": 1333, "shortest_edge": 800}}, file)


if __name__ == "__main__":
    main()
