#!/usr/bin/env python3
"""The packed forward of a clip with all its questions gives the numbers of ordinary dialogues, one a question.

    python3 tests/test_packed.py [--size tiny]       (in training/)

Compares logits at the letter's place with transformers' own forward of InternVLForConditionalGeneration (input_ids and
pixel_values, causal mask, sdpa) in f32, for each way in which a clip is shown (shapes.py). Both sum the same numbers in another order: 1e-4 of the largest logit is allowed.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from scene import draw_clip  # noqa: E402
from vlm import detections, dialogue, losses, model as M, targets, tokenizer  # noqa: E402
from vlm.feed import to_tensors  # noqa: E402
from vlm.shapes import MIXES, SHAPES  # noqa: E402


def compare(model, lines, classes, mix, seed):
    """(largest difference in logits as a share of the largest logit, questions, tokens, tiles) of one clip shown as mix."""
    how = MIXES[mix]
    clip, rng = draw_clip(seed, how.frames), np.random.default_rng(seed)
    detector = detections.Detector(rng)
    found = [detector.found(clip, i) for i in range(how.frames)]
    # What is padding here must count for nothing: noise.
    tiles = rng.integers(0, 256, (SHAPES[how.shape].tiles, M.SIZE, M.SIZE, 3), dtype=np.uint8)
    record = targets.Teacher(lines, classes).show(targets.Pictures(clip), mix, found, rng, tiles)
    assert record is not None, f"{mix}: does not fit its shape"
    model.net.model.language_model.config._attn_implementation = "packed"
    with torch.no_grad():
        _, out = losses.compute(model, torch.from_numpy(tiles)[None], to_tensors(record[None], "cpu"),
                                lines.id["<|im_end|>"])
    got = out["logits"][0].numpy()
    model.net.model.language_model.config._attn_implementation = "sdpa"
    used = tiles[:record["n_tiles"]]
    pixels = (used.astype(np.float32) / np.float32(255) - np.float32(M.MEAN)) / np.float32(M.STD)
    pixels = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    prefix = record["prefix"][:record["length"]].tolist()
    assert prefix.count(lines.id["<IMG_CONTEXT>"]) == len(used) * M.TOKENS_PER_FRAME
    assert ("Frame1: " in lines.tokenizer.decode(prefix)), "no frames in the prompt"
    worst, asked = 0.0, 0
    questions = {tuple(lines.suffix(q.text, q.choices)[0]): q for q in clip.questions}
    for i in np.flatnonzero(record["n"]):
        suffix = record["suffix"][i][:record["n"][i]].tolist()
        assert tuple(suffix) in questions, "a record's tokens are those of none of the clip's questions"
        ids = torch.tensor([prefix + suffix])
        with torch.no_grad():
            want = model.net(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids),
                             logits_to_keep=1).logits[0, -1].numpy()
        worst, asked = max(worst, float(np.abs(want - got[i]).max() / np.abs(want).max())), asked + 1
    return worst, asked, len(prefix), len(used)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--size", default="tiny"), ap.add_argument("--seed", type=int, default=targets.HELD_OUT)
    args = ap.parse_args()
    lines, classes = dialogue.Dialogue(tokenizer.load()), targets.load_classes()
    model = M.packed(args.size, lines, classes)
    with torch.no_grad():  # biases and norms that are 0 and 1 would hide one that is left out
        for p in model.net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    bad = []
    for mix in MIXES:
        worst, asked, n_tokens, n_tiles = compare(model, lines, classes, mix, args.seed)
        print(f"{mix}: {asked} questions, {n_tokens} prefix tokens, {n_tiles} tiles: largest difference {worst:.2e} of the "
              f"largest logit", flush=True)
        if asked == 0 or not worst < 1e-4:
            bad.append(mix)
    if bad:
        raise SystemExit(f"the packed forward departs from the ordinary one: {', '.join(bad)}")


if __name__ == "__main__":
    main()
