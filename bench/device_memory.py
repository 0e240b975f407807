#!/usr/bin/env python3
"""Runs a command and prints the most device memory that was in use meanwhile (NVML, sampled every millisecond), less what
was in use before: on cards that nobody else uses, what the command took.

    device_memory.py COMMAND [ARG...]        needs nvidia-ml-py
    LOWBEAM_BENCH_CARD=0[,1...]              the cards to look at, as nvidia-smi numbers them (0)

With LOWBEAM_BENCH_BUDGET=BYTES[,BYTES...] another process first takes (cuMemAlloc) all that is free on each card above its
budget, so that a command that crosses it fails; LOWBEAM_BENCH_BALLAST_GROWS=SECONDS[,BYTES] lets that of the first card take
BYTES (1 GiB) more after so many seconds, as soon as they are free; with LOWBEAM_BENCH_BALLAST_AFTER=FILE the seconds count
from when FILE is there.
"""
import os
import subprocess
import sys
import threading
import time

import pynvml

os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
pynvml.nvmlInit()
GIB = 2**30
BALLAST = r"""
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
device, context, free, total = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
assert cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(device), int(sys.argv[2])) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0 and cuda.cuCtxSetCurrent(context) == 0
def take(keep):
    cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    at, n = ctypes.c_uint64(), free.value - keep
    while n > 0 and cuda.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(n)) != 0:
        n -= 1 << 21
    return max(n, 0)
print(take(int(sys.argv[1])), flush=True)
for line in sys.stdin:
    print(take(int(line)), flush=True)
"""


class Card:
    def __init__(self, index, budget):
        self.index = index
        self.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        self.ballast = None
        self.idle = self.memory().used
        if budget:
            # the ballast sees all cards, whatever the command is to see
            environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
            self.ballast = subprocess.Popen([sys.executable, "-c", BALLAST, budget, str(index)], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True, env=environment)
            assert self.ballast.stdout.readline(), "the ballast could not be taken"
            print(f"device memory: card {index}: ballast taken, {self.memory().free / GIB:.3f} GiB left", flush=True)
        self.before = self.peak = self.memory().used

    def memory(self):
        return pynvml.nvmlDeviceGetMemoryInfo(self.handle)

    def keep_only(self, keep):
        """The ballast takes all above keep bytes; how much that was."""
        self.ballast.stdin.write(f"{keep}\n")
        self.ballast.stdin.flush()
        return int(self.ballast.stdout.readline() or 0)

    def end(self):
        """The driver takes its time to free what a process held: whoever measures next must not see it go."""
        if self.ballast:
            self.ballast.kill()
            self.ballast.wait()
        until = time.monotonic() + 20
        while self.memory().used > self.idle + (16 << 20) and time.monotonic() < until:
            time.sleep(0.05)


numbers = [int(n) for n in os.environ.get("LOWBEAM_BENCH_CARD", "0").split(",")]
budgets = (os.environ.get("LOWBEAM_BENCH_BUDGET") or "").split(",")
cards = [Card(n, budgets[i] if i < len(budgets) else "") for i, n in enumerate(numbers)]
running = True


def sample():
    while running:
        for card in cards:
            card.peak = max(card.peak, card.memory().used)
        time.sleep(0.001)


thread = threading.Thread(target=sample)
thread.start()
grows = os.environ.get("LOWBEAM_BENCH_BALLAST_GROWS")
if grows and cards[0].ballast:
    seconds, _, more = grows.partition(",")

    def grow():
        card, left = cards[0], int(more or GIB)
        after = os.environ.get("LOWBEAM_BENCH_BALLAST_AFTER")
        while after and not os.path.exists(after):
            time.sleep(0.02)
        time.sleep(float(seconds))
        while left > 0 and running:
            free = card.memory().free
            step = min(left, free - (64 << 20))
            if step > 64 << 20:
                left -= card.keep_only(free - step)
                print(f"device memory: the ballast grew, {left / GIB:.3f} GiB to go", flush=True)
            time.sleep(0.005)

    threading.Thread(target=grow, daemon=True).start()
status = subprocess.run(sys.argv[1:]).returncode
running = False
thread.join()
for card in cards:
    card.end()
for card in cards:
    name = f"card {card.index}: " if len(cards) > 1 else ""
    print(f"device memory: {name}before {card.before / GIB:.3f} GiB, peak {(card.peak - card.before) / GIB:.4f} GiB above that",
          flush=True)
sys.exit(status)
