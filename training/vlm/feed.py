"""Worker processes draw clips into shared memory; the trainer takes them from there into pools on the GPU.

Each worker owns a ring of slots a shape (shapes.py) that it alone fills and the trainer alone empties, so that two
counters a ring are all the agreement there is. A clip that is drawn is shown in several ways; a ring that is full costs
its way and nothing else. Nor does a worker that dies, or a seed that cannot be drawn, cost more than its clips.
"""
import mmap
import os
import time
import traceback

import numpy as np
import torch

from .detections import Detector
from .model import SIZE
from .shapes import FRAMES, MIXES, SHAPES
from .targets import HELD_OUT, Pictures, Teacher

TILE = (SIZE, SIZE, 3)


def shared(shape, dtype):
    """An array that processes forked later see, too; zeros, and memory only where something was written."""
    dtype = np.dtype(dtype)
    n = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(mmap.mmap(-1, max(n, 1)), dtype, int(np.prod(shape))).reshape(shape)


class Held:
    """The held-out clips of one shape."""

    def __init__(self, n, shape, kind):
        self.tiles, self.records = shared((n, shape.tiles, *TILE), np.uint8), shared((n,), kind)
        self.done = shared((n,), np.uint8)

    def ready(self):
        """(tiles, records) of those that could be drawn."""
        chosen = np.flatnonzero(self.done)
        if len(chosen) == len(self.done):
            return self.tiles, self.records
        return self.tiles[chosen], self.records[chosen]


class Feed:
    """rings: what is drawn for training; held: the held-out clips, drawn first. Start it before CUDA is touched."""

    def __init__(self, lines, classes, n_workers, n_held, seed, ring=1.0):
        """n_held: clips of eight frames; there are a third as many of each other number of frames. ring: times the rings
        of shapes.py."""
        self.n_workers = n_workers
        self.types = Teacher(lines, classes).types
        self.ring = {name: max(2, round(ring * shape.ring)) for name, shape in SHAPES.items()}
        self.tiles = {name: shared((n_workers, self.ring[name], shape.tiles, *TILE), np.uint8)
                      for name, shape in SHAPES.items()}
        self.records = {name: shared((n_workers, self.ring[name]), self.types[name]) for name in SHAPES}
        # 16 numbers a worker, so that no two share a cache line: drawn and taken
        self.counts = {name: shared((n_workers, 16), np.int64) for name in SHAPES}
        self.state = shared((n_workers, 16), np.int64)  # clips drawn, failed, stop, held-out clips done
        self.jobs, number = [], dict.fromkeys(SHAPES, 0)
        self.n_held = {frames: n_held if frames == 8 else -(-n_held // 3) for frames in FRAMES}
        # Spread, so that a few clips (--often) hold all ways already.
        for i in range(n_held):
            for frames in FRAMES:
                if i < self.n_held[frames]:
                    places = []
                    for mix, how in MIXES.items():
                        if how.frames == frames:
                            places.append((mix, number[how.shape]))
                            number[how.shape] += 1
                    self.jobs.append((frames, HELD_OUT + i, places))
        self.held = {name: Held(number[name], shape, self.types[name]) for name, shape in SHAPES.items()}
        self.pids = []
        for w in range(n_workers):
            pid = os.fork()
            if pid == 0:
                try:
                    self._work(w, lines, classes, seed)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)
            self.pids.append(pid)

    def _work(self, w, lines, classes, seed):
        import cv2
        from scene import draw_clip
        cv2.setNumThreads(1)
        os.nice(5)  # the trainer's own thread goes first
        parent = os.getppid()
        teacher, rng = Teacher(lines, classes), np.random.default_rng([seed, w])
        state = self.state[w]

        def clip_of(clip_seed, frames):
            clip = draw_clip(clip_seed, frames)
            detector = Detector(rng)
            return Pictures(clip), [detector.found(clip, i) for i in range(frames)]

        def failed(clip_seed):
            if state[1] == 0:
                print(f"worker {w}: seed {clip_seed} cannot be drawn", flush=True)
                traceback.print_exc()
            state[1] += 1

        for frames, clip_seed, places in self.jobs[w::self.n_workers]:
            try:
                pictures, found = clip_of(clip_seed, frames)
                for mix, at in places:
                    held = self.held[MIXES[mix].shape]
                    record = teacher.show(pictures, mix, found, rng, held.tiles[at])
                    if record is not None:
                        held.records[at], held.done[at] = record, 1
            except Exception:
                failed(clip_seed)
            state[3] += 1
        numbers, shares = list(FRAMES), np.array(list(FRAMES.values())) / sum(FRAMES.values())
        while not state[2] and os.getppid() == parent:
            frames = int(rng.choice(numbers, p=shares))
            wanted = [mix for mix, how in MIXES.items() if how.frames == frames and rng.random() < how.often
                      and self._room(w, how.shape)]
            if not wanted:
                time.sleep(0.002)
                continue
            clip_seed = int(rng.integers(0, 2**31))
            try:
                pictures, found = clip_of(clip_seed, frames)
                for mix in wanted:
                    name = MIXES[mix].shape
                    if not self._room(w, name):
                        continue
                    at = int(self.counts[name][w, 0]) % self.ring[name]
                    record = teacher.show(pictures, mix, found, rng, self.tiles[name][w, at])
                    if record is not None:
                        self.records[name][w, at] = record
                        self.counts[name][w, 0] += 1
                state[0] += 1
            except Exception:
                failed(clip_seed)

    def _room(self, w, name):
        return self.counts[name][w, 0] - self.counts[name][w, 1] < self.ring[name]

    def drawn(self):
        return int(self.state[:, 0].sum())

    def failed(self):
        return int(self.state[:, 1].sum())

    def wait_held(self, seconds=60):
        """{shape: (tiles, records)} of the held-out clips, after waiting for them."""
        until = time.time() + seconds
        while self.state[:, 3].sum() < len(self.jobs) and time.time() < until:
            time.sleep(0.05)
        return {name: held.ready() for name, held in self.held.items()}

    def close(self):
        self.state[:, 2] = 1
        for pid in self.pids:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
        self.pids = []


def as_numbers(records):
    """Records [n] as one matrix [n, k] of their int16 numbers, without a copy."""
    return np.ascontiguousarray(records).view(np.int16).reshape(len(records), -1)


def split(numbers, kind):
    """Tensor [n, k] to the fields of the record type `kind`, [n, ...] each."""
    out, at = {}, 0
    for name in kind.names:
        shape = kind[name].shape
        size = int(np.prod(shape))
        out[name] = numbers[:, at:at + size].reshape(len(numbers), *shape)
        at += size
    return out


def to_tensors(records, device):
    """A structured array [n] as tensors [n, ...], int16."""
    return split(torch.from_numpy(as_numbers(records)).to(device), records.dtype)


class Pool:
    """The newest clips of one shape, on the device; old ones are overwritten."""

    def __init__(self, feed, name, size, device):
        self.feed, self.name, self.size, self.device, self.filled, self.taken = feed, name, size, device, 0, 0
        self.kind, self.n_tiles = feed.types[name], SHAPES[name].tiles
        width = self.kind.itemsize // 2
        stage = max(1, min(size, 768 // self.n_tiles))
        self.tiles = torch.zeros((size, self.n_tiles, *TILE), dtype=torch.uint8, device=device)
        self.numbers = torch.zeros((size, width), dtype=torch.int16, device=device)
        pin = device.type == "cuda"
        # Two stages in turn, page-locked: one is filled while the other is on its way, and the host never waits for the
        # device's queue, as it would for a copy from ordinary memory.
        self.stages = [(torch.zeros((stage, self.n_tiles, *TILE), dtype=torch.uint8, pin_memory=pin),
                        torch.zeros((stage, width), dtype=torch.int16, pin_memory=pin)) for _ in range(2)]
        self.events, self.turn, self.first = [None, None], 0, 0

    def take(self):
        """Moves what waits, up to one stage; the number of clips."""
        (stage, stage_numbers), event = self.stages[self.turn], self.events[self.turn]
        feed, chosen = self.feed, []
        counts, ring = feed.counts[self.name], feed.ring[self.name]
        tiles, records = feed.tiles[self.name], feed.records[self.name]
        taken = counts[:, 1].copy()
        room = np.minimum(counts[:, 0] - taken, ring)
        # In turn, so that no worker starves when the trainer is the slower one.
        while len(chosen) < len(stage) and room.sum() > 0:
            for k in range(feed.n_workers):
                w = (self.first + k) % feed.n_workers
                if room[w] > 0 and len(chosen) < len(stage):
                    chosen.append((w, int(taken[w]) % ring))
                    taken[w] += 1
                    room[w] -= 1
        self.first += 1
        if not chosen:
            return 0
        if event is not None:
            event.synchronize()
        pixels, numbers, n = stage.numpy(), stage_numbers.numpy(), len(chosen)
        for i, (w, at) in enumerate(chosen):
            used = int(records[w, at]["n_tiles"])  # what lies behind them is never looked at
            pixels[i, :used] = tiles[w, at, :used]
            numbers[i] = as_numbers(records[w, at:at + 1])[0]
        counts[:, 1] = taken
        place = torch.arange(self.taken, self.taken + n, device=self.device) % self.size
        self.tiles.index_copy_(0, place, stage[:n].to(self.device, non_blocking=True))
        self.numbers.index_copy_(0, place, stage_numbers[:n].to(self.device, non_blocking=True))
        if self.device.type == "cuda":
            self.events[self.turn] = torch.cuda.Event()
            self.events[self.turn].record()
        self.turn = 1 - self.turn
        self.taken += n
        self.filled = min(self.size, self.taken)
        return n

    def batch(self, n):
        """(tiles, records) of n clips drawn by chance."""
        chosen = torch.randint(self.filled, (n,), device=self.device)
        return self.tiles[chosen], split(self.numbers[chosen], self.kind)
