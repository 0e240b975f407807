#!/usr/bin/env python3
"""Time of tiles, crops and resizes beside Pillow's, one thread each, in one run.

    bench_tiles.py --build BUILD_DIR [--rounds N]

The two take turns and the thread's processor time is read, so that other work on the machine disturbs little and both
alike; the median of the rounds is printed, and the ratio of the medians. Pillow starts from an Image and ends with one (its 4 bytes a pixel); what it would cost to fill the one and
read the other is not counted against it. The bytes are compared once. Exit status 1 where lowbeam is slower or differs.
"""
import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL
from PIL import Image


def library(build):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with tempfile.TemporaryDirectory(prefix="lowbeam-bench-") as folder:
        path = os.path.join(folder, "bench_tiles.so")
        subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared",
                        "-I", root + "/src", "-I", root + "/include", root + "/bench/bench_tiles.c",
                        build + "/liblowbeam_core.a", "-lm", "-o", path], check=True)
        loaded = ctypes.CDLL(path)
    loaded.bench_kernels.restype = ctypes.c_char_p
    return loaded


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def frame(width, height):
    """Something like a picture: smooth shapes and some noise."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([np.sin(x / 97) + np.cos(y / 61), np.sin((x + y) / 53), np.cos(x / 31) * np.sin(y / 47)], axis=2)
    noise = np.random.default_rng(1).normal(0, 8, smooth.shape)
    return np.clip(128 + 60 * smooth + noise, 0, 255).astype(np.uint8)


def resize_case(lowbeam, width, height, to_width, to_height, bilinear=0, scalar=0):
    pixels, out = frame(width, height), np.empty((to_height, to_width, 3), np.uint8)
    image = Image.fromarray(pixels)
    resample = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
    name = f"{width}x{height} -> {to_width}x{to_height}" + (" bilinear" if bilinear else "") + \
        (" (scalar kernels)" if scalar else "")
    return (name, lambda: lowbeam.bench_resize(pointer(pixels), width, height, to_width, to_height, bilinear, scalar,
                                               pointer(out)),
            lambda: image.resize((to_width, to_height), resample), out, np.asarray)


def tiles_case(lowbeam, width, height, max_tiles, columns, rows):
    size = 448
    pixels, out = frame(width, height), np.empty((columns * rows + 1, size, size, 3), np.uint8)
    image = Image.fromarray(pixels)

    def pillow():
        resized = image.resize((size * columns, size * rows))
        tiles = [resized.crop((n % columns * size, n // columns * size, (n % columns + 1) * size,
                               (n // columns + 1) * size)) for n in range(columns * rows)]
        return tiles + [image.resize((size, size))]

    return (f"{width}x{height} -> {columns}x{rows} tiles and thumbnail",
            lambda: lowbeam.bench_tiles(pointer(pixels), width, height, max_tiles, size, pointer(out)), pillow, out,
            lambda tiles: np.stack([np.asarray(tile) for tile in tiles]))


def crop_case(lowbeam, width, height, box):
    pixels, out = frame(width, height), np.empty((448, 448, 3), np.uint8)
    image = Image.fromarray(pixels)
    return (f"crop {box[2] - box[0]}x{box[3] - box[1]} of {width}x{height} -> 448x448",
            lambda: lowbeam.bench_crop(pointer(pixels), width, height, *box, 448, pointer(out)),
            lambda: image.crop(box).resize((448, 448)), out, np.asarray)


def seconds(work, calls):
    begin = time.thread_time()
    for _ in range(calls):
        work()
    return (time.thread_time() - begin) / calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", required=True, help="build folder with liblowbeam_core.a")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    lowbeam = library(options.build)
    cases = [
        resize_case(lowbeam, 1920, 1080, 448, 448),
        resize_case(lowbeam, 1920, 1080, 1344, 1344),
        resize_case(lowbeam, 1920, 1080, 1792, 1344),
        resize_case(lowbeam, 1280, 720, 448, 448),
        resize_case(lowbeam, 1080, 1920, 448, 448),
        resize_case(lowbeam, 3840, 2160, 448, 448),
        resize_case(lowbeam, 1920, 1080, 1333, 750, bilinear=1),
        tiles_case(lowbeam, 1920, 1080, 12, 4, 2),
        tiles_case(lowbeam, 1200, 1200, 9, 3, 3),
        tiles_case(lowbeam, 1120, 448, 10, 5, 2),
        crop_case(lowbeam, 1920, 1080, (600, 300, 680, 390)),
        crop_case(lowbeam, 1920, 1080, (1000, 200, 1600, 900)),
        crop_case(lowbeam, 1920, 1080, (1700, 100, 2000, 1080)),
        resize_case(lowbeam, 1920, 1080, 448, 448, scalar=1),
    ]
    print(f"lowbeam with {lowbeam.bench_kernels().decode()} kernels beside Pillow {PIL.__version__}, one thread, "
          f"median of {options.rounds} rounds")
    print(f"{'':52}{'lowbeam ms':>12}{'Pillow ms':>12}{'ratio':>8}")
    slower = different = 0
    for name, ours, pillow, out, to_array in cases:
        if ours() != 0:
            sys.exit(f"{name}: lowbeam failed")
        wrong = int(np.count_nonzero(out != to_array(pillow())))
        if wrong:
            print(f"FAIL {name}: {wrong} bytes differ")
        different += wrong
        calls = max(1, int(0.02 / seconds(ours, 1)))
        times = [(seconds(ours, calls), seconds(pillow, 2)) for _ in range(options.rounds)]
        a, b = (statistics.median(column) * 1e3 for column in zip(*times))
        slower += a > b and "scalar" not in name
        print(f"{name:52}{a:12.3f}{b:12.3f}{b / a:8.2f}")
    print(f"{different} bytes differ, {slower} cases slower than Pillow")
    return 1 if slower or different else 0


if __name__ == "__main__":
    sys.exit(main())
