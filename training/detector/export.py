#!/usr/bin/env python3
"""Turns what training/train_detector.sh wrote into a folder as IDEA-Research publishes Grounding DINO.

    python3 -m detector.export TRAINED_DIR HF_DIR          (in training/)
    lowbeam convert HF_DIR -o grounding-dino-lowbeam-small.gguf --type f16-exact

HF_DIR then holds config.json, model.safetensors, vocab.txt and preprocessor_config.json. Needs torch, transformers,
safetensors.
"""
import argparse
import json
import os

import torch

from . import model as M, vocabulary


def write_folder(net, folder):
    broken = [name for name, p in net.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise SystemExit(f"'{broken[0]}' holds what is no number")
    net.save_pretrained(folder)
    with open(os.path.join(folder, "preprocessor_config.json"), "w") as file:
        json.dump({"do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
                   "format": "coco_detection", "image_mean": list(M.MEAN), "image_std": list(M.STD),
                   "image_processor_type": "GroundingDinoImageProcessor", "resample": 2, "rescale_factor": 1 / 255,
                   "size": {"longest_edge": M.LONGEST_EDGE, "shortest_edge": M.SHORTEST_EDGE}}, file, indent=1)
    vocabulary.write(os.path.join(folder, "vocab.txt"))
    print(f"{folder}: {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("trained"), ap.add_argument("out")
    args = ap.parse_args()
    write_folder(M.load(args.trained), args.out)


if __name__ == "__main__":
    main()
