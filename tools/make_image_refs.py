#!/usr/bin/env python3
"""Makes tests/image/files: small PNG and JPEG files of every kind, and beside each its pixels as Pillow's
Image.open(...).convert("RGB") gives them, for tests/image/test_files.c.

    make_image_refs.py [FOLDER]

NAME.rgb: 4 bytes width, 4 bytes height (little endian), then the pixels. Needs Pillow and numpy; PNG kinds that Pillow
cannot write are put together here from chunks.
"""
import pathlib
import struct
import sys
import zlib

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 19, 13
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def picture():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([x * 13, y * 19, (x * y * 3) % 256], -1)
    noise = np.random.default_rng(7).integers(0, 40, (HEIGHT, WIDTH, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack(samples, depth):
    """[h, w, c] samples to PNG rows with filter 0."""
    rows = b""
    for row in samples:
        if depth == 16:
            data = row.astype(">u2").tobytes()
        else:
            bits = ((row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)
            data = np.packbits(bits).tobytes()
        rows += b"\0" + data
    return rows


def png(kind, depth, interlaced, transparency=b"", samples=None, extra=b""):
    rng = np.random.default_rng(kind * 100 + depth)
    if samples is None:
        samples = rng.integers(0, min(2 ** depth, 2 ** 16), (HEIGHT, WIDTH, CHANNELS[kind]))
    if interlaced:
        body = b"".join(pack(samples[y0::dy, x0::dx], depth) for x0, y0, dx, dy in ADAM7 if samples[y0::dy, x0::dx].size)
    else:
        body = pack(samples, depth)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, kind, 0, 0, interlaced))
    out += extra
    if kind == 3:
        out += chunk(b"PLTE", rng.integers(0, 256, 3 * 2 ** depth, np.uint8).tobytes())
    if transparency:
        out += chunk(b"tRNS", transparency)
    return out + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "image" / "files"
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for kind, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            for interlaced in (0, 1):
                files[f"type{kind}_{depth}bit{'_interlaced' * interlaced}.png"] = png(kind, depth, interlaced)
    files["grey_transparent.png"] = png(0, 8, 0, struct.pack(">H", 30))
    files["rgb_transparent.png"] = png(2, 8, 0, struct.pack(">HHH", 30, 40, 50))
    files["palette_transparent.png"] = png(3, 4, 0, bytes(range(0, 160, 10)))
    files["gamma.png"] = png(2, 8, 0, extra=chunk(b"gAMA", struct.pack(">I", 100000)))
    for name, data in files.items():
        (folder / name).write_bytes(data)

    image = Image.fromarray(picture())
    jpegs = {"420": dict(subsampling=2), "422": dict(subsampling=1), "444": dict(subsampling=0, quality=95),
             "progressive": dict(progressive=True), "restart": dict(restart_marker_blocks=1), "low": dict(quality=10),
             "rgb": dict(keep_rgb=True)}
    for name, options in jpegs.items():
        image.save(folder / f"{name}.jpg", **options)
        files[f"{name}.jpg"] = None
    image.convert("L").save(folder / "grey.jpg")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated: not applied
    image.save(folder / "exif.jpg", exif=exif)
    for name in [*files, "grey.jpg", "cmyk.jpg", "exif.jpg"]:
        rgb = Image.open(folder / name).convert("RGB")
        (folder / f"{name}.rgb").write_bytes(struct.pack("<II", *rgb.size) + rgb.tobytes())


if __name__ == "__main__":
    main()
