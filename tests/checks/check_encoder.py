#!/usr/bin/env python3
"""The vision encoder against transformers: embeddings.npy for the tiles that lowbeam itself cut (tiles.npy).

    check_encoder.py --lowbeam PATH --models DIR [--work DIR]

Limits on the relative error of the worst tile: f32 1e-4 (f32 sums in another order: about 1e-6 is seen); bf16 1e-2
(weights rounded to 8 bits alone give 4e-3); f16 3e-3 (weights alone 6e-4); q8_0 4e-2 (weights alone 1.3e-2, and the CPU
rounds what it multiplies them with to 8 bits, too). What the limits must catch is computed beside them: positions
shifted by one patch, and the class token put last.
"""
import numpy as np

from common import Check, largest, question, reference, relative, write_video

LIMIT = {"f32": 1e-4, "f16": 3e-3, "bf16": 1e-2, "q8_0": 4e-2}


def shifted_positions(model, tiles):
    """Embeddings of an encoder with libmtmd's fault: each patch gets its neighbour's position."""
    table = model.model.vision_tower.embeddings.position_embeddings
    good = table.data.clone()
    table.data = good.roll(-1, 1)
    try:
        return reference.embed(model, tiles)
    finally:
        table.data = good


def main():
    check = Check(__doc__)
    # 4 pictures, 3 frames of them: indices 0, 1, 2 by design.md's formula. 5 to 2 gives the grid 5x2 with the thumbnail
    # where ten tiles are allowed, 448 to 448 one tile.
    write_video(f"{check.work}/videos/wide", 4, 640, 256, 1)
    write_video(f"{check.work}/videos/square", 3, 150, 150, 2)
    for kind, types in (("small", LIMIT), ("tiny224", LIMIT)):
        model = reference.load(check.model(kind, "hf"))
        size, n_embd = model.config.vision_config.image_size[0], model.config.text_config.hidden_size
        for weights in types:
            run = check.answer(f"encoder-{kind}-{weights}", [question("w", "Có gì?", "wide"), question("s", "?", "square")],
                               kind=kind, llm="f32", mmproj=weights, tiles=10)
            for video, n_tiles in (("wide", [11, 11, 11]), ("square", [1, 1, 1])):
                tiles, ours = run.array(video, "tiles"), run.array(video, "embeddings")
                what = f"{kind} {weights} {video}"
                check.expect(f"{what}, tiles a frame", run.array(video, "tiles_per_frame").tolist() == n_tiles and
                             tiles.shape == (sum(n_tiles), size, size, 3), f"{tiles.shape}")
                expected = reference.embed(model, tiles)
                if not check.expect(f"{what}, shape", ours.shape == expected.shape and ours.dtype == np.float32,
                                    f"{ours.shape} {ours.dtype}, expected {expected.shape}"):
                    continue
                by_tile = [relative(a, b) for a, b in zip(np.split(ours, len(tiles)), np.split(expected, len(tiles)))]
                check.verdict(f"{what}, worst of {len(tiles)} tiles", max(by_tile), LIMIT[weights],
                              f"whole {relative(ours, expected):.2e} {largest(ours, expected)}")
        # 3 of 3 pictures gives the indices 0, 1, 1: the same frame twice, at other places of the batches.
        last = np.split(ours, 3)
        check.verdict(f"{kind} q8_0, the same tile twice", relative(last[2], last[1]), 1e-5)
        fault = relative(shifted_positions(model, tiles), expected)
        check.expect(f"{kind}, positions shifted by one would be seen", fault > 2 * max(LIMIT.values()), f"{fault:.2e}")
        check.expect(f"{kind}, embedding width", ours.shape[1] == n_embd, f"{ours.shape[1]}")
    check.exit()


if __name__ == "__main__":
    main()
