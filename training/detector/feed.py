"""Worker processes draw frames into shared memory; the trainer takes them from there into a pool on the GPU.

As vlm/feed.py, of whose rings these are: each worker owns one that it alone fills and the trainer alone empties. A frame is
drawn at one of SIZES, now and then compressed, and resized as lowbeam does it (Pillow's bilinear), so that what the
network sees in training is what it will see.
"""
import os
import time
import traceback

import numpy as np
import torch

from . import vocabulary
from .model import HEIGHT, WIDTH

HELD_OUT = 3_000_000_000  # the first seed that training never takes
# (width, height, far), in turn: mostly clips as the generator has them, with small signs and lights
SIZES = ((800, 450, True), (448, 252, False), (800, 450, True), (640, 360, True))
N_OBJECTS = 20  # of a frame; the smallest ones of a frame with more are not taught
SHAPE = (HEIGHT, WIDTH, 3)
LEAST_PX = 3.0  # of a picture 448 wide: what is narrower or lower is not taught


def shared(shape, dtype):
    """An array that processes forked later see, too; zeros, and memory only where something was written."""
    import mmap
    dtype = np.dtype(dtype)
    n = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(mmap.mmap(-1, max(n, 1)), dtype, int(np.prod(shape))).reshape(shape)


def to_target(boxes, width, height):
    """[(label, x0, y0, x1, y1)] in pixels -> f32 [N_OBJECTS, 5]: label's number, cx, cy, w, h; -1 where there is none"""
    out = np.full((N_OBJECTS, 5), -1, np.float32)
    least = LEAST_PX * width / 448
    kept = [b for b in boxes if b[3] - b[1] >= least and b[4] - b[2] >= least]
    kept.sort(key=lambda b: -(b[3] - b[1]) * (b[4] - b[2]))
    for i, (label, x0, y0, x1, y1) in enumerate(kept[:N_OBJECTS]):
        out[i] = (vocabulary.LABELS.index(label), (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width,
                  (y1 - y0) / height)
    return out


def to_picture(frame, rng):
    """As the network sees it; rng: a generator for the compression, or None for none."""
    from PIL import Image
    if rng is not None and rng.random() < 0.4:
        import cv2
        ok, data = cv2.imencode(".jpg", frame[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))))
        if ok:
            frame = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    if frame.shape == SHAPE:
        return frame
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


class Feed:
    """rings: what is drawn for training; held: the held-out frames, drawn first. Start it before CUDA is touched."""

    def __init__(self, n_workers, n_held, seed, ring=256, n_frames=4):
        self.n_workers, self.n_held, self.ring, self.n_frames = n_workers, n_held - n_held % n_frames, ring, n_frames
        self.pictures = shared((n_workers, ring, *SHAPE), np.uint8)
        self.targets = shared((n_workers, ring, N_OBJECTS, 5), np.float32)
        self.held_pictures = shared((self.n_held, *SHAPE), np.uint8)
        self.held_targets = shared((self.n_held, N_OBJECTS, 5), np.float32)
        self.held_done = shared((self.n_held,), np.uint8)
        # 16 numbers a worker, so that no two share a cache line: drawn, taken, failed, stop
        self.counts = shared((n_workers, 16), np.int64)
        self.pids = []
        for w in range(n_workers):
            pid = os.fork()
            if pid == 0:
                try:
                    self._work(w, seed)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)
            self.pids.append(pid)

    def _work(self, w, seed):
        import cv2
        from scene import draw_clip
        cv2.setNumThreads(1)
        os.nice(5)  # the trainer's own thread goes first
        parent = os.getppid()
        rng, counts = np.random.default_rng([seed, w]), self.counts[w]

        def draw(clip_seed, size, compress):
            """[(picture, target)] or nothing"""
            try:
                clip = draw_clip(clip_seed, self.n_frames, *size)
                return [(to_picture(frame, rng if compress else None), to_target(boxes, *size[:2]))
                        for frame, boxes in zip(clip.frames, clip.boxes)]
            except Exception:
                if counts[2] == 0:
                    print(f"worker {w}: seed {clip_seed} cannot be drawn", flush=True)
                    traceback.print_exc()
                counts[2] += 1
                return []

        for i in range(w, self.n_held // self.n_frames, self.n_workers):
            for k, (picture, target) in enumerate(draw(HELD_OUT + i, SIZES[i % len(SIZES)], False)):
                at = i * self.n_frames + k
                self.held_pictures[at], self.held_targets[at] = picture, target
                self.held_done[at] = 1
        while not counts[3] and os.getppid() == parent:
            if counts[0] - counts[1] > self.ring - self.n_frames:
                time.sleep(0.003)
                continue
            size = SIZES[int(rng.integers(0, len(SIZES)))]
            for picture, target in draw(int(rng.integers(0, 2**31)), size, True):
                at = int(counts[0]) % self.ring
                self.pictures[w, at], self.targets[w, at] = picture, target
                counts[0] += 1

    def drawn(self):
        return int(self.counts[:, 0].sum())

    def failed(self):
        return int(self.counts[:, 2].sum())

    def held(self, seconds=60):
        """(pictures, targets) of the held-out frames, after waiting for them; those not drawn are left out."""
        until = time.time() + seconds
        while self.held_done.sum() < self.n_held and time.time() < until:
            time.sleep(0.05)
        chosen = np.flatnonzero(self.held_done)
        return self.held_pictures[chosen], self.held_targets[chosen]

    def close(self):
        self.counts[:, 3] = 1
        for pid in self.pids:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
        self.pids = []


class Pool:
    """The newest frames, on the device; old ones are overwritten."""

    def __init__(self, feed, size, device, stage=256):
        self.feed, self.size, self.device, self.filled, self.taken = feed, size, device, 0, 0
        self.pictures = torch.empty((size, *SHAPE), dtype=torch.uint8, device=device)
        self.targets = torch.empty((size, N_OBJECTS, 5), device=device)
        pin = device.type == "cuda"
        # Two stages in turn, page-locked: one is filled while the other is on its way.
        self.stages = [(torch.empty((stage, *SHAPE), dtype=torch.uint8, pin_memory=pin),
                        torch.empty((stage, N_OBJECTS, 5), pin_memory=pin)) for _ in range(2)]
        self.events, self.turn, self.first = [None, None], 0, 0

    def take(self, most=96):
        """Moves what waits, up to `most`; the number of frames."""
        (stage, stage_targets), event = self.stages[self.turn], self.events[self.turn]
        feed, chosen, most = self.feed, [], min(most, len(self.stages[0][0]), self.size)
        taken = feed.counts[:, 1].copy()
        room = np.minimum(feed.counts[:, 0] - taken, feed.ring)
        # In turn, so that no worker starves when the trainer is the slower one.
        while len(chosen) < most and room.sum() > 0:
            for k in range(feed.n_workers):
                w = (self.first + k) % feed.n_workers
                if room[w] > 0 and len(chosen) < most:
                    chosen.append((w, int(taken[w]) % feed.ring))
                    taken[w] += 1
                    room[w] -= 1
        self.first += 1
        if not chosen:
            return 0
        if event is not None:
            event.synchronize()
        pictures, targets, n = stage.numpy(), stage_targets.numpy(), len(chosen)
        for i, (w, at) in enumerate(chosen):
            pictures[i], targets[i] = feed.pictures[w, at], feed.targets[w, at]
        feed.counts[:, 1] = taken
        place = torch.arange(self.taken, self.taken + n, device=self.device) % self.size
        self.pictures.index_copy_(0, place, stage[:n].to(self.device, non_blocking=True))
        self.targets.index_copy_(0, place, stage_targets[:n].to(self.device, non_blocking=True))
        if self.device.type == "cuda":
            self.events[self.turn] = torch.cuda.Event()
            self.events[self.turn].record()
        self.turn = 1 - self.turn
        self.taken += n
        self.filled = min(self.size, self.taken)
        return n

    def batch(self, n):
        """(pictures u8 [n, height, width, 3], targets [n, N_OBJECTS, 5]) drawn by chance."""
        chosen = torch.randint(self.filled, (n,), device=self.device)
        return self.pictures[chosen], self.targets[chosen]
