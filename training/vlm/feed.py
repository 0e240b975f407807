"""Worker processes draw clips into shared memory; the trainer takes them from there into a pool on the GPU.

Each worker owns a ring of slots that it alone fills and the trainer alone empties, so that two counters a ring are all
the agreement there is. A worker that dies or a seed that cannot be drawn costs its clips and nothing else.
"""
import mmap
import os
import time
import traceback

import numpy as np
import torch

from .model import SIZE
from .targets import HELD_OUT, N_FRAMES, Teacher, tiles

TILE_SHAPE = (N_FRAMES, SIZE, SIZE, 3)


def shared(shape, dtype):
    """An array that processes forked later see, too; zeros, and memory only where something was written."""
    dtype = np.dtype(dtype)
    n = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(mmap.mmap(-1, max(n, 1)), dtype, int(np.prod(shape))).reshape(shape)


class Feed:
    """rings: what is drawn for training; held: the held-out clips, drawn first. Start it before CUDA is touched."""

    def __init__(self, lines, classes, n_workers, n_held, seed, ring=384):
        self.n_workers, self.n_held, self.ring = n_workers, n_held, ring
        kind = Teacher(lines, classes).type
        self.tiles = shared((n_workers, ring, *TILE_SHAPE), np.uint8)
        self.records = shared((n_workers, ring), kind)
        self.held_tiles, self.held_records = shared((n_held, *TILE_SHAPE), np.uint8), shared((n_held,), kind)
        self.held_done = shared((n_held,), np.uint8)
        # 16 numbers a worker, so that no two share a cache line: drawn, taken, failed, stop
        self.counts = shared((n_workers, 16), np.int64)
        self.pids, self.seconds = [], time.time()
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
        counts = self.counts[w]

        def draw(clip_seed, place, record):
            try:
                clip = draw_clip(clip_seed)
                place[...] = tiles(clip)
                record[...] = teacher.record(clip, rng)
                return True
            except Exception:
                if counts[2] == 0:
                    print(f"worker {w}: seed {clip_seed} cannot be drawn", flush=True)
                    traceback.print_exc()
                counts[2] += 1
                return False

        for i in range(w, self.n_held, self.n_workers):
            if draw(HELD_OUT + i, self.held_tiles[i], self.held_records[i:i + 1].reshape(())):
                self.held_done[i] = 1
        while not counts[3] and os.getppid() == parent:
            if counts[0] - counts[1] >= self.ring:
                time.sleep(0.003)
                continue
            at = int(counts[0]) % self.ring
            if draw(int(rng.integers(0, 2**31)), self.tiles[w, at], self.records[w, at:at + 1].reshape(())):
                counts[0] += 1

    def drawn(self):
        return int(self.counts[:, 0].sum())

    def failed(self):
        return int(self.counts[:, 2].sum())

    def held(self, seconds=60):
        """(tiles, records) of the held-out clips, after waiting for them; those that could not be drawn are left out."""
        until = time.time() + seconds
        while self.held_done.sum() < self.n_held and time.time() < until:
            time.sleep(0.05)
        chosen = np.flatnonzero(self.held_done)
        return self.held_tiles[chosen], self.held_records[chosen]

    def close(self):
        self.counts[:, 3] = 1
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
    """The newest clips, on the device; old ones are overwritten."""

    def __init__(self, feed, size, device, stage=96):
        self.feed, self.size, self.device, self.filled, self.taken = feed, size, device, 0, 0
        self.kind = feed.records.dtype
        width = self.kind.itemsize // 2
        self.tiles = torch.empty((size, *TILE_SHAPE), dtype=torch.uint8, device=device)
        self.numbers = torch.empty((size, width), dtype=torch.int16, device=device)
        pin = device.type == "cuda"
        # Two stages in turn, page-locked: one is filled while the other is on its way, and the host never waits for the
        # device's queue, as it would for a copy from ordinary memory.
        self.stages = [(torch.empty((stage, *TILE_SHAPE), dtype=torch.uint8, pin_memory=pin),
                        torch.empty((stage, width), dtype=torch.int16, pin_memory=pin)) for _ in range(2)]
        self.events, self.turn, self.first = [None, None], 0, 0

    def take(self):
        """Moves what waits, up to one stage; the number of clips."""
        (stage, stage_numbers), event = self.stages[self.turn], self.events[self.turn]
        feed, chosen = self.feed, []
        counts = feed.counts
        taken = counts[:, 1].copy()
        room = np.minimum(counts[:, 0] - taken, feed.ring)
        # In turn, so that no worker starves when the trainer is the slower one.
        while len(chosen) < min(len(stage), self.size) and room.sum() > 0:
            for k in range(feed.n_workers):
                w = (self.first + k) % feed.n_workers
                if room[w] > 0 and len(chosen) < min(len(stage), self.size):
                    chosen.append((w, int(taken[w]) % feed.ring))
                    taken[w] += 1
                    room[w] -= 1
        self.first += 1
        if not chosen:
            return 0
        if event is not None:
            event.synchronize()
        pixels, numbers, n = stage.numpy(), stage_numbers.numpy(), len(chosen)
        for i, (w, at) in enumerate(chosen):
            pixels[i], numbers[i] = feed.tiles[w, at], as_numbers(feed.records[w, at:at + 1])[0]
        counts[:, 1] = taken
        place = torch.arange(self.taken, self.taken + n, device=self.device) % self.size
        self.tiles.index_copy_(0, place, stage[:n].to(self.device, non_blocking=True))
        self.numbers.index_copy_(0, place, stage_numbers[:n].to(self.device, non_blocking=True))
        if self.device.type == "cuda":
            self.events[self.turn] = torch.cuda.Event()
            self.events[self.turn].record()
        self.turn = 1 - self.turn
        self.taken += len(chosen)
        self.filled = min(self.size, self.taken)
        return len(chosen)

    def batch(self, n):
        """(tiles, records) of n clips drawn by chance."""
        chosen = torch.randint(self.filled, (n,), device=self.device)
        return self.tiles[chosen], split(self.numbers[chosen], self.kind)
