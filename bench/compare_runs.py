#!/usr/bin/env python3
"""Compares the answers of runs by their journals: letters, and the letters' logits by design.md's measures.

    compare_runs.py REFERENCE.db RUN.db [RUN.db ...]

For each run: how many letters differ, the largest difference of a logit as a share of the largest, and how many of the
letters that differ had a margin of more than six times that limit (3e-2).
"""
import json
import pathlib
import sqlite3
import sys

LIMIT = 3e-2


def read(path):
    rows = sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute(
        "SELECT id, answer, letter_logits, error FROM answer ORDER BY question").fetchall()
    return {row[0]: (row[1], json.loads(row[2]) if row[2] else None, row[3]) for row in rows}


reference = read(sys.argv[1])
bad = 0
for path in sys.argv[2:]:
    run = read(path)
    differ = clear = failed = 0
    worst = 0.0
    for key, (letter, logits, error) in reference.items():
        other = run.get(key)
        if other is None or other[2] or error:
            failed += 1
            continue
        scale = max(abs(x) for x in logits)
        worst = max(worst, max(abs(a - b) for a, b in zip(logits, other[1])) / scale)
        if letter != other[0]:
            differ += 1
            top = sorted(logits)[::-1]
            clear += (top[0] - top[1]) / scale > 6 * LIMIT
    verdict = "agrees" if failed == 0 and clear == 0 and worst <= LIMIT else "DIFFERS"
    bad += verdict != "agrees"
    print(f"{pathlib.Path(path).stem}: {len(reference)} questions, {failed} failed, letters that differ {differ}, of them "
          f"with a clear margin {clear}, logits {worst:.1e} of the largest: {verdict}")
sys.exit(bad > 0)
