#!/usr/bin/env python3
"""Runs a command and prints the most device memory that was in use meanwhile (NVML, sampled every millisecond), less what
was in use before: on a card that nobody else uses, what the command took.

    device_memory.py COMMAND [ARG...]        needs nvidia-ml-py; LOWBEAM_BENCH_CARD: another card than the first

With LOWBEAM_BENCH_BUDGET=BYTES another process first takes (cuMemAlloc) all that is free on the card above that budget, so
that a command that crosses it fails; LOWBEAM_BENCH_BALLAST_GROWS=SECONDS[,BYTES] lets it take BYTES (1 GiB) more after so
many seconds.
"""
import os
import subprocess
import sys
import threading
import time

import pynvml

pynvml.nvmlInit()
index = int(os.environ.get("LOWBEAM_BENCH_CARD", "0"))
card = pynvml.nvmlDeviceGetHandleByIndex(index)
BALLAST = r"""
import ctypes, sys, time
cuda = ctypes.CDLL("libcuda.so.1")
device, context, free, total = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
assert cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(device), int(sys.argv[2])) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0 and cuda.cuCtxSetCurrent(context) == 0
def take(keep):
    cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    at, n = ctypes.c_uint64(), free.value - keep
    while n > 0 and cuda.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(n)) != 0:
        n -= 1 << 21
take(int(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    take(int(line))
    print("ready", flush=True)
"""
budget = os.environ.get("LOWBEAM_BENCH_BUDGET")
ballast = None


def ask(keep):
    ballast.stdin.write(f"{keep}\n")
    ballast.stdin.flush()
    ballast.stdout.readline()


if budget:
    ballast = subprocess.Popen([sys.executable, "-c", BALLAST, budget, str(index)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert ballast.stdout.readline() == "ready\n", "the ballast could not be taken"
    info = pynvml.nvmlDeviceGetMemoryInfo(card)
    print(f"device memory: ballast taken, {info.free / 2**30:.3f} GiB left", flush=True)
before = pynvml.nvmlDeviceGetMemoryInfo(card).used
peak = before
running = True


def sample():
    global peak
    while running:
        peak = max(peak, pynvml.nvmlDeviceGetMemoryInfo(card).used)
        time.sleep(0.001)


thread = threading.Thread(target=sample)
thread.start()
grows = os.environ.get("LOWBEAM_BENCH_BALLAST_GROWS")
if grows and ballast:
    seconds, _, more = grows.partition(",")

    def grow():
        time.sleep(float(seconds))
        left = pynvml.nvmlDeviceGetMemoryInfo(card).free
        ask(max(0, left - int(more or 1 << 30)))
        print(f"device memory: the ballast grew, {pynvml.nvmlDeviceGetMemoryInfo(card).free / 2**30:.3f} GiB left", flush=True)

    threading.Thread(target=grow, daemon=True).start()
status = subprocess.run(sys.argv[1:]).returncode
if ballast:
    ballast.kill()
running = False
thread.join()
print(f"device memory: before {before / 2**30:.3f} GiB, peak {(peak - before) / 2**30:.3f} GiB above that", flush=True)
sys.exit(status)
