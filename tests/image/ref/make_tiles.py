#!/usr/bin/env python3
"""Writes tiles.ref: what Pillow (13 or later) makes of made-up pictures, for test_tiles.c.

    make_tiles.py [tiles.ref]

Little-endian. 64 bytes: "LBTILES1 ", this script's name and Pillow's version, padded with zeros. int32 number of cases.
Each case: int32 [9] operation, width, height, arguments (5), stored; uint64 FNV-1a hash of the result; then the bytes
of the result where stored is 1 (the small ones), in rows of RGB.
Operations: 0, 1 resize bicubic, bilinear to arguments 0 x 1, in Pillow 13's order of passes; 2 the same, bicubic, in
the order before 13; 3 tiles of up to argument 0, of argument 1 pixels; 4 crop of box arguments 0..3 to argument 4.
"""
import os
import struct
import sys

import numpy as np
import PIL
from PIL import Image

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "checks"))
from check_tiles import reference_tiles  # noqa: E402

BICUBIC, BILINEAR, OLD_ORDER, TILES, CROP = range(5)
STORED_BYTES = 20000


def picture(width, height):
    """As picture() in test_tiles.c: noise on the left, noise of black and white blocks on the right."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    blocks = x >= width // 2
    v = np.where(blocks, (y // 3 * 65536 + x // 4) * 3 + c, (y * 65536 + x) * 3 + c).astype(np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    v = (v + np.uint64(1)) * np.uint64(2654435761) & mask
    v ^= v >> np.uint64(15)
    v = v * np.uint64(2246822519) & mask
    v = v >> np.uint64(24)
    return np.where(blocks, (v > 127) * 255, v).astype(np.uint8)


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def expected(operation, width, height, a):
    image = Image.fromarray(picture(width, height))
    if operation == BICUBIC:
        return np.asarray(image.resize((a[0], a[1]), Image.Resampling.BICUBIC))
    if operation == BILINEAR:
        return np.asarray(image.resize((a[0], a[1]), Image.Resampling.BILINEAR))
    if operation == OLD_ORDER:  # each step has one pass
        return np.asarray(image.resize((a[0], height)).resize((a[0], a[1])))
    if operation == TILES:
        return reference_tiles(image, a[0], a[1])
    return np.asarray(image.crop(tuple(a[:4])).resize((a[4], a[4])))


CASES = [(operation, *case) for operation in (BICUBIC, BILINEAR, OLD_ORDER) for case in [
    (1, 1, (1, 1)), (1, 1, (40, 30)), (1, 3000, (40, 40)), (3000, 1, (40, 40)), (3000, 1, (1, 1)), (2, 2, (3, 3)),
    (64, 48, (64, 48)), (64, 48, (64, 20)), (64, 48, (30, 48)), (64, 48, (100, 90)), (64, 48, (31, 33)),
    (50, 90, (60, 40)), (100, 121, (90, 100)), (100, 120, (90, 100)), (200, 300, (10, 11)), (33, 7, (65, 64)),
    (320, 180, (448, 448)), (11, 5, (10, 4)), (97, 89, (11, 40)), (480, 854, (448, 448))]]
CASES += [(TILES, 320, 180, (most, 32)) for most in range(1, 13)]
CASES += [(TILES, 180, 320, (12, 32)), (TILES, 100, 100, (9, 28)), (TILES, 1, 3000, (12, 14)),
          (TILES, 3000, 1, (12, 14)), (TILES, 1120, 448, (10, 448)), (TILES, 1920, 1080, (12, 448))]
CASES += [(CROP, 64, 48, (*box, size)) for box, size in [
    ((0, 0, 64, 48), 32), ((63, 47, 64, 48), 32), ((-10, -10, 74, 58), 33), ((100, 100, 120, 130), 32),
    ((-500, 20, 20, 21), 32), ((10, -3000, 11, 3000), 32), ((0, 0, 32, 32), 32), ((40, 20, 72, 52), 32),
    ((-5, 3, 20, 90), 40), ((30, -7, 34, 200), 40), ((-70000 + 4500, 0, 34, 48), 1)]]


def main():
    if int(PIL.__version__.split(".")[0]) < 13:
        sys.exit(f"Pillow {PIL.__version__} has another order of passes: Pillow 13 or later is needed")
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiles.ref")
    with open(path, "wb") as file:
        file.write(f"LBTILES1 make_tiles.py Pillow {PIL.__version__}".encode().ljust(64, b"\0"))
        file.write(struct.pack("<i", len(CASES)))
        for operation, width, height, arguments in CASES:
            data = expected(operation, width, height, arguments).tobytes()
            stored = int(len(data) <= STORED_BYTES)
            arguments = (list(arguments) + [0] * 5)[:5]
            file.write(struct.pack("<9iQ", operation, width, height, *arguments, stored, fnv1a(data)))
            file.write(data if stored else b"")


if __name__ == "__main__":
    main()
