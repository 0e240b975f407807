#!/usr/bin/env python3
"""Runs a command and prints the most device memory that was in use meanwhile (NVML, sampled every millisecond), less what
was in use before: on a card that nobody else uses, what the command took.

    device_memory.py COMMAND [ARG...]        needs nvidia-ml-py
"""
import subprocess
import sys
import threading
import time

import pynvml

pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
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
status = subprocess.run(sys.argv[1:]).returncode
running = False
thread.join()
print(f"device memory: before {before / 2**30:.2f} GiB, peak {(peak - before) / 2**30:.2f} GiB above that", flush=True)
sys.exit(status)
