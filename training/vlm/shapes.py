"""The sizes of batches, and what is put into them.

Compiled code is made for fixed sizes, so there are four of them; a clip fills as much of its size as it has, the rest is
padding that nothing sees. Each step is of one size.
"""
from collections import namedtuple

# tiles of a clip, tokens of its prefix, clips a step, how many steps of all, clips kept on the device, clips that wait
# (a worker)
Shape = namedtuple("Shape", "tiles prefix batch share pool ring")
SHAPES = {"small": Shape(8, 768, 48, 0.22, 4096, 48), "middle": Shape(24, 1920, 32, 0.25, 2048, 32),
          "large": Shape(48, 3584, 24, 0.41, 2048, 32), "huge": Shape(96, 6976, 8, 0.12, 256, 8)}
# Tiles go through the encoder so many at a time: all batches above are multiples.
CHUNK = 384

# What a clip is shown as: frames, --max-tiles, with detector, its shape, how often it is made where such a clip is drawn.
Mix = namedtuple("Mix", "frames max_tiles detector shape often")
MIXES = {"f8": Mix(8, 1, False, "small", 1.0), "f8d": Mix(8, 1, True, "large", 1.0),
         "f8t": Mix(8, 6, False, "middle", 0.35), "f8td": Mix(8, 6, True, "huge", 0.25),
         "f4": Mix(4, 1, False, "small", 0.7), "f4d": Mix(4, 1, True, "middle", 1.0),
         "f16": Mix(16, 1, False, "middle", 1.0), "f16d": Mix(16, 1, True, "huge", 1.0)}
# Drawing costs most, so a clip that is drawn is shown in all ways that its frames allow. Shares of the clips.
FRAMES = {8: 0.62, 4: 0.20, 16: 0.18}
