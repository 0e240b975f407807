#!/usr/bin/env python3
"""Tiles, crops and resizes of lowbeam against Pillow, byte for byte, and tile grids against the reference's rule.

    check_tiles.py --build BUILD_DIR [--cases N] [--seed S]

Needs Pillow and numpy; transformers, where installed, is asked for its grids as well. Sizes are random, plus the ones
that are known to be awkward. The limit is 0 differing bytes: both sides compute in integers.

Pillow 13.0 began to run the vertical pass first for tall pictures, which rounds differently. lowbeam does as the
current Pillow does; with an older Pillow installed only the resizes are compared, in the order that it has.
"""
import argparse
import os
import random
import struct
import subprocess
import sys
import tempfile

import numpy as np
import PIL
from PIL import Image

BICUBIC, BILINEAR, TILES, CROP, GRID = range(5)
MAX_TILES = 64
PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13
KERNELS = ("best", "scalar", "AVX2")
HORIZONTAL_FIRST = 4


def grids_in_reference_order(max_tiles):
    """OpenGVLab's dynamic_preprocess, min_num = 1: a set of tuples, sorted by i * j."""
    ratios = set(
        (i, j) for n in range(1, max_tiles + 1) for i in range(1, n + 1) for j in range(1, n + 1) if i * j <= max_tiles
    )
    return sorted(ratios, key=lambda ratio: ratio[0] * ratio[1])


def reference_grid(grids, width, height, size):
    """OpenGVLab's find_closest_aspect_ratio."""
    best_difference, best = float("inf"), (1, 1)
    for i, j in grids:
        difference = abs(width / height - i / j)
        if difference < best_difference:
            best_difference, best = difference, (i, j)
        elif difference == best_difference and width * height > 0.5 * size * size * i * j:
            best = (i, j)
    return best


def reference_tiles(image, max_tiles, size):
    columns, rows = reference_grid(grids_in_reference_order(max_tiles), image.width, image.height, size)
    resized = image.resize((size * columns, size * rows))
    tiles = []
    for n in range(columns * rows):
        x, y = n % columns * size, n // columns * size
        tiles.append(resized.crop((x, y, x + size, y + size)))
    if len(tiles) != 1:
        tiles.append(image.resize((size, size)))
    return np.stack([np.asarray(tile) for tile in tiles])


def program(build):
    """dump_tiles from the build folder, or compiled here against the build's library."""
    for place in ("tests/dump_tiles", "dump_tiles"):
        path = os.path.join(build, place)
        if os.access(path, os.X_OK):
            return path
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.path.join(tempfile.mkdtemp(prefix="lowbeam-tiles-"), "dump_tiles")
    command = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-I", root + "/src",
               "-I", root + "/include", root + "/tests/image/dump_tiles.c", build + "/liblowbeam_core.a",
               "-lm", "-o", path] + os.environ.get("CFLAGS", "").split()
    subprocess.run(command, check=True)
    return path


class Lowbeam:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, operation, width, height, arguments, pixels=None, padding=0, variant=0):
        arguments = (list(arguments) + [0] * 5)[:5]
        send = self.process.stdin
        send.write(struct.pack("10i", operation, width, height, padding, *arguments, variant))
        if pixels is not None:
            rows = np.full((height, 3 * width + padding), 255, np.uint8)
            rows[:, : 3 * width] = pixels.reshape(height, 3 * width)
            send.write(rows.tobytes())
        send.flush()
        status, columns, rows, n_tiles = struct.unpack("4i", self.read(16))
        if status != 0:
            raise RuntimeError(f"status {status} for operation {operation} on {width}x{height} with {arguments}")
        if operation in (BICUBIC, BILINEAR):
            shape = (arguments[1], arguments[0], 3)
        elif operation == TILES:
            shape = (n_tiles, arguments[1], arguments[1], 3)
        elif operation == CROP:
            shape = (arguments[4], arguments[4], 3)
        else:
            return columns, rows
        return np.frombuffer(self.read(int(np.prod(shape))), np.uint8).reshape(shape)

    def read(self, n):
        data = self.process.stdout.read(n)
        if len(data) != n:
            raise RuntimeError(f"dump_tiles ended, status {self.process.wait()}")
        return data

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


class Tally:
    def __init__(self):
        self.rows = {}
        self.bad = 0

    def add(self, group, what, got, wanted):
        if got.shape != wanted.shape:
            different, largest = wanted.size, 255
        else:
            delta = np.abs(got.astype(np.int16) - wanted.astype(np.int16))
            different, largest = int(np.count_nonzero(delta)), int(delta.max())
        row = self.rows.setdefault(group, [0, 0, 0])
        row[0] += 1
        row[1] += wanted.size
        row[2] += different
        if different:
            self.bad += 1
            print(f"FAIL {group}: {what}: {different} of {wanted.size} bytes differ, by up to {largest}")


def picture(rng, width, height):
    """Noise, steps and ramps: noise reaches all values, steps make the filters overshoot."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 1:
        return (rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * 255).astype(np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 7 + y, x + 3 * y, (x // 5 % 2) * 255], axis=2).astype(np.uint8)


def random_side(rand, limit):
    return max(1, int(round(limit ** rand.random())))


def check_resizes(lowbeam, tally, rand, rng, n):
    sizes = [(1, 1, 1, 1), (1, 1, 448, 448), (1, 10000, 448, 448), (20000, 1, 448, 448), (20000, 1, 1, 1),
             (2, 2, 3, 3), (448, 448, 448, 448), (448, 100, 448, 448), (100, 448, 448, 448), (5, 7, 1000, 1),
             (1920, 1080, 448, 448), (1920, 1080, 1344, 1344), (1280, 720, 1333, 750), (3, 3000, 10, 11),
             (10, 10, 11, 10), (6, 6, 6, 7), (1080, 1920, 448, 448), (100, 121, 90, 100), (100, 120, 90, 100), (640, 480, 320, 240), (333, 333, 111, 111), (1, 3, 3, 1)]
    sizes += [tuple(random_side(rand, 900) for _ in range(4)) for _ in range(n)]
    for width, height, to_width, to_height in sizes:
        if not PILLOW_13 and height > 100 * width:
            continue  # Pillow 12.2 and 12.3 had a rule of their own for these
        pixels = picture(rng, width, height)
        image = Image.fromarray(pixels)
        padding = rand.choice((0, 0, 1, 7, 64))
        for operation, name, resample in ((BICUBIC, "bicubic", Image.Resampling.BICUBIC),
                                          (BILINEAR, "bilinear", Image.Resampling.BILINEAR)):
            wanted = np.asarray(image.resize((to_width, to_height), resample))
            for variant, kernels in enumerate(KERNELS):
                got = lowbeam.ask(operation, width, height, (to_width, to_height), pixels, padding,
                                  variant | (0 if PILLOW_13 else HORIZONTAL_FIRST))
                tally.add(f"resize {name}, {kernels} kernels",
                          f"{width}x{height} to {to_width}x{to_height}", got, wanted)
    wanted = np.asarray(Image.fromarray(pixels).resize((9, 9)))
    got = np.asarray(Image.fromarray(pixels).resize((9, 9), Image.Resampling.BICUBIC))
    if not np.array_equal(got, wanted):
        tally.bad += 1
        print("FAIL Image.resize's default is no longer bicubic")


def check_tiles(lowbeam, tally, rand, rng, n):
    cases = [(1920, 1080, most, 448) for most in range(1, 13)]
    cases += [(448, 448, 12, 448), (1120, 448, 10, 448), (448, 5376, 12, 448), (1, 10000, 12, 32), (20000, 1, 12, 32)]
    cases += [(random_side(rand, 1500), random_side(rand, 1500), rand.randint(1, 12), rand.choice((14, 56, 99)))
              for _ in range(n)]
    for width, height, most, size in cases:
        pixels = picture(rng, width, height)
        tally.add("tiles", f"{width}x{height}, up to {most} of {size}",
                  lowbeam.ask(TILES, width, height, (most, size), pixels, rand.choice((0, 5))),
                  reference_tiles(Image.fromarray(pixels), most, size))


def check_every_grid(lowbeam, tally, rng):
    """A picture for each grid of up to 12 tiles, so that none goes untested."""
    for columns, rows in grids_in_reference_order(12):
        width, height = 50 * columns, 50 * rows
        pixels = picture(rng, width, height)
        tally.add("tiles", f"{width}x{height}, up to 12 of 48",
                  lowbeam.ask(TILES, width, height, (12, 48), pixels),
                  reference_tiles(Image.fromarray(pixels), 12, 48))


def check_crops(lowbeam, tally, rand, rng, n):
    cases = [(64, 48, (0, 0, 64, 48)), (64, 48, (63, 47, 64, 48)), (64, 48, (-10, -10, 74, 58)),
             (64, 48, (100, 100, 120, 130)), (64, 48, (-500, 20, 20, 21)), (64, 48, (10, -3000, 11, 3000)),
             (64, 48, (64, 0, 65, 48)), (64, 48, (0, 0, 56, 56)), (64, 48, (30, 10, 86, 66)), (1, 1, (0, 0, 1, 1)),
             (64, 48, (-4000, -3000, 4000, 3000)), (640, 900, (100, 20, 180, 880)), (640, 900, (600, 500, 700, 1500))]
    for _ in range(n):
        width, height = random_side(rand, 800), random_side(rand, 800)
        x0, y0 = rand.randint(-width // 2, width), rand.randint(-height // 2, height)
        cases.append((width, height, (x0, y0, x0 + random_side(rand, 900), y0 + random_side(rand, 900))))
    for width, height, box in cases:
        pixels = picture(rng, width, height)
        size = rand.choice((1, 14, 56, 224, 448))
        tally.add("crops", f"{box} of {width}x{height} to {size}",
                  lowbeam.ask(CROP, width, height, (*box, size), pixels, rand.choice((0, 3))),
                  np.asarray(Image.fromarray(pixels).crop(box).resize((size, size))))


def check_grids(lowbeam, rand, n):
    """Grids against OpenGVLab's rule and, where installed, transformers'. Ratios half-way between two grids' are the
    ones where the order of the grids and the area decide."""
    try:
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas
    except ImportError as missing:
        get_optimal_tiled_canvas = None
        print(f"skipped: grids against transformers ({missing})")
    orders = {most: grids_in_reference_order(most) for most in range(1, MAX_TILES + 1)}
    cases = []
    for most in range(1, 13):
        ratios = sorted({(i / j, i, j) for i, j in orders[most]})
        for (_, i, j), (_, k, l) in zip(ratios, ratios[1:]):
            width, height = i * l + k * j, 2 * j * l  # (i/j + k/l) / 2
            for factor in (1, 3, 20, 224, 448):
                cases.append((width * factor, height * factor, most))
        for _, i, j in ratios:
            for factor in (10, 100, 316, 317, 448):
                cases.append((i * factor, j * factor, most))
    for _ in range(n):
        cases.append((random_side(rand, 30000), random_side(rand, 30000), rand.randint(1, MAX_TILES)))
    wrong = 0
    for width, height, most in cases:
        got = lowbeam.ask(GRID, width, height, (most, 448))
        wanted = {"the reference": reference_grid(orders[most], width, height, 448)}
        if get_optimal_tiled_canvas:
            wanted["transformers"] = tuple(get_optimal_tiled_canvas((height, width), (448, 448), 1, most))
        for whose, grid in wanted.items():
            if got != grid:
                wrong += 1
                print(f"FAIL grid of {width}x{height}, up to {most}: {got}, {whose} has {grid}")
    print(f"grids: {len(cases)} pictures, {wrong} differ")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", required=True, help="build folder (liblowbeam_core.a or dump_tiles in it)")
    parser.add_argument("--cases", type=int, default=300, help="random sizes per group (default 300)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rand, rng = random.Random(options.seed), np.random.default_rng(options.seed)
    lowbeam, tally = Lowbeam(program(options.build)), Tally()
    check_resizes(lowbeam, tally, rand, rng, options.cases)
    if PILLOW_13:
        check_tiles(lowbeam, tally, rand, rng, options.cases // 2)
        check_every_grid(lowbeam, tally, rng)
        check_crops(lowbeam, tally, rand, rng, options.cases)
    else:
        print(f"skipped: tiles and crops, whose passes follow the order of Pillow 13 (this is {PIL.__version__})")
    wrong = check_grids(lowbeam, rand, 10 * options.cases)
    ended = lowbeam.close()
    print(f"Pillow {PIL.__version__}, seed {options.seed}")
    for group, (pictures, size, different) in tally.rows.items():
        print(f"{group}: {pictures} pictures, {size} bytes, {different} bytes differ (limit 0)")
    if tally.bad or wrong or ended:
        print(f"FAILED: {tally.bad} pictures, {wrong} grids, dump_tiles' exit status {ended}")
        return 1
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
