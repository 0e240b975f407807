#!/usr/bin/env python3
"""Memory over a long run: after the last video as after the tenth, within 1 %, for lowbeam and its engine: resident memory,
the ledger, descriptors. LOWBEAM_FLAT_VIDEOS (24) videos of three questions each; 700 in make soak."""
import contextlib
import json
import os
import re
import sqlite3
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "run"))
import harness

VIDEOS = int(os.environ.get("LOWBEAM_FLAT_VIDEOS", "24"))
QUESTIONS = int(os.environ.get("LOWBEAM_FLAT_QUESTIONS", str(3 * VIDEOS)))
SANITIZED = bool(os.environ.get("ASAN_OPTIONS"))  # AddressSanitizer keeps what was freed for a while, 256 MB by itself
FIRST = 10  # videos until everything has been used
harness.LIMIT_S = 4 * 3600


def resident(pid):
    """(anonymous and file-backed resident bytes but for shared memory, descriptors)"""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        fields = dict(re.findall(r"^(\w+): +(\d+) kB", file.read(), re.M))
    return int(fields["Anonymous"]) * 1024, len(os.listdir(f"/proc/{pid}/fd"))


class Flat(harness.Test):
    def test_memory_is_flat(self):
        for v in range(VIDEOS):  # each its own content, so that nothing is kept from another
            os.makedirs(self.path(f"n{v}"))
            for i in range(2):
                harness.write_png(self.path(f"n{v}", f"{i}.png"), 48, 32,
                                  lambda x, y: ((x * 5 + v * 40) % 256, (y * 7 + i * 30 + v // 8) % 256, (x * y + v) % 256))
        path = self.questions([(f"q{i}", f"n{i * VIDEOS // QUESTIONS}") for i in range(QUESTIONS)])
        trace = self.path("trace.jsonl")
        process = self.start(path, "--answer", "letter", "--trace", trace)
        samples = []  # (answers, lowbeam's memory, descriptors, engine's)
        while process.poll() is None:
            time.sleep(0.2)
            try:
                n = len(self.stored(process))
                engine, = harness.children(process.pid, "engine-child")
                samples.append((n, *resident(process.pid), *resident(engine)))
            except (OSError, ValueError, KeyError):
                continue
        run = self.finish(process)
        self.assertEqual(run.status, 0, run)
        early = [s for s in samples if s[0] >= FIRST * QUESTIONS // VIDEOS]
        self.assertGreater(len(early), 5)
        quarter = max(3, len(early) // 4)
        first, last = early[:quarter], early[-quarter:]
        for at, what in (((1,), "lowbeam's"), ((3,), "its engine's"), ((1, 3), "together")):
            # the most within each: what one video needs comes and goes
            before, after = (max(sum(s[i] for i in at) for s in part) for part in (first, last))
            print(f"memory, {what}: {before / 2**20:.2f} MiB after {first[0][0]} answers, {after / 2**20:.2f} MiB after "
                  f"{last[-1][0]}")
        if not SANITIZED:
            self.assertLessEqual(after, before * 1.01, samples[::max(1, len(samples) // 40)])
        for at in (2, 4):
            # the usual number: what is open for a moment, as a clip changes hands, is seen in one sample of a hundred or in none
            usual = [statistics.median(s[at] for s in part) for part in (first, last)]
            self.assertLessEqual(usual[1], usual[0], ("descriptors", [s[at] for s in first], [s[at] for s in last]))
        held = {}
        with open(trace, encoding="utf-8") as file:
            for event in map(json.loads, file):
                held.setdefault((event["pid"], event["device"]), []).append((event["video"], event["held"]))
        for place, events in held.items():
            peaks = {}
            for video, size in events:
                if re.search(r"/n\d+$", video):
                    peaks[video] = max(peaks.get(video, 0), size)
            if len(peaks) < VIDEOS:
                continue
            values = list(peaks.values())
            print(f"ledger {place}: {values[FIRST - 1]} bytes at most at the tenth video, {values[-1]} at the last")
            if place[1] >= 0:
                self.assertLessEqual(abs(values[-1] - values[FIRST - 1]), values[FIRST - 1] // 100)

    @staticmethod
    def stored(process):
        try:
            with contextlib.closing(sqlite3.connect(f"file:{process.csv_path[:-4]}.db?mode=ro", uri=True)) as db:
                return db.execute("SELECT question FROM answer").fetchall()
        except sqlite3.Error:  # not there yet
            return []


if __name__ == "__main__":
    harness.main()
