#!/usr/bin/env python3
"""Real videos of six containers, damaged at random, among sound ones: no run is lost, each question has its row, and the
sound videos' answers and logits stay what they were. Environment: LOWBEAM_MUTATIONS, how many (150, 60 under a sanitizer; make soak takes 3000);
LOWBEAM_MUTATIONS_SEED (1). The damage follows from the seed alone; a file that did harm is kept and named."""
import collections
import os
import random
import re
import shutil
import tempfile
import time

import harness

N = int(os.environ.get("LOWBEAM_MUTATIONS", "60" if "ASAN_OPTIONS" in os.environ else "150"))
SEED = int(os.environ.get("LOWBEAM_MUTATIONS_SEED", "1"))
A_RUN = 75  # damaged files in one run of lowbeam
SAMPLES = os.path.join(harness.TOP, "samples", "videos")

# container: its sound files, from tests/video/ref (tools/make_video_refs.py) and samples/
SOUND = {
    "mp4": ["h264_bframes.mp4", "av1.mp4", "h264_open_gop.mp4", "h264_422_10bit.mp4", "h264_rotated.mp4"],
    "mkv": ["hevc.mkv"],
    "webm": ["vp9_odd.webm"],
    "avi": ["mpeg4_bframes.avi"],
    "mov": ["mjpeg.mov"],
    "ts": ["h264.ts"],
}
NUMBERS = (0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff)


def place(data, rng):
    """Half of the damage goes where the headers mostly are: the first and the last KiB."""
    n = len(data)
    at = rng.random()
    if at < 0.25:
        return rng.randrange(min(n, 1024))
    if at < 0.5:
        return n - 1 - rng.randrange(min(n, 1024))
    return rng.randrange(n)


def flip_bits(data, rng, other):
    for _ in range(rng.choice((1, 4, 16, 64))):
        data[place(data, rng)] ^= 1 << rng.randrange(8)


def write_bytes(data, rng, other):
    for _ in range(rng.choice((1, 4, 16))):
        data[place(data, rng)] = rng.choice((0, 0xff, 0x7f, 0x80, rng.randrange(256)))


def write_number(data, rng, other):
    for _ in range(rng.choice((1, 2, 4))):
        width = rng.choice((2, 4, 8))
        at = min(place(data, rng), len(data) - width)
        data[at:at + width] = (rng.choice(NUMBERS) & (1 << 8 * width) - 1).to_bytes(width, rng.choice(("big", "little")))


def piece(data, rng):
    start = place(data, rng)
    return start, min(len(data), start + rng.choice((1, 4, 16, 188, 1000)))


def cut_out(data, rng, other):
    start, end = piece(data, rng)
    del data[start:end]


def cut_off(data, rng, other):
    del data[max(1, place(data, rng)):]


def zero(data, rng, other):
    start, end = piece(data, rng)
    data[start:end] = bytes(end - start)


def repeat(data, rng, other):
    start, end = piece(data, rng)
    data[start:start] = data[start:end] * rng.choice((1, 2, 50))


def move(data, rng, other):
    start, end = piece(data, rng)
    part = data[start:end]
    del data[start:end]
    at = place(data, rng)
    data[at:at] = part


def splice(data, rng, other):
    start, end = piece(data, rng)
    at = place(other, rng)
    data[start:end] = other[at:at + rng.choice((4, 188, 2000))]


KINDS = (flip_bits, write_bytes, write_number, cut_out, cut_off, zero, repeat, move, splice)


def damaged(i, files):
    """File number i: (name, bytes)."""
    rng = random.Random(f"{SEED} {i}")
    container = list(SOUND)[i % len(SOUND)]
    data = bytearray(rng.choice(files[container]))
    other = rng.choice(files[rng.choice(list(SOUND))])
    for _ in range(rng.choice((1, 1, 2, 5))):
        rng.choice(KINDS)(data, rng, other)
        if len(data) < 8:
            break
    return f"{i:05}.{container}", bytes(data)


def cause(error):
    for words, name in (("SIGSYS", "ended by the filter"), ("crashed", "crashed"), ("was killed", "killed"),
                        ("no progress", "timed out"), ("at work, but", "timed out"), ("processor time", "timed out"),
                        ("more than the", "too large"), ("no memory", "out of memory"), ("cannot allocate", "out of memory"),
                        ("makes no sense", "lied"), ("does not speak", "lied")):
        if words in error:
            return name
    return "said why not"


class Mutations(harness.Test):
    def check_good(self, run, expected, context):
        journal = run.journal()
        for i, row in expected.items():
            for field in ("answer", "raw_response", "letter_logits", "error"):
                self.assertEqual(journal[i][field], row[field], f"{i} among {context}\n{run}")

    def test_damaged_files_among_sound_ones(self):
        files = {}
        for container, names in SOUND.items():
            paths = [os.path.join(harness.CLIPS, name) for name in names]
            if container == "mp4" and N > 1000 and os.path.isdir(SAMPLES):
                paths += sorted(os.path.join(SAMPLES, name) for name in os.listdir(SAMPLES) if name.endswith(".mp4"))[:3]
            files[container] = []
            for path in paths:
                with open(path, "rb") as file:
                    files[container].append(file.read())
        good = ["v0", "v1", "v2", "v3"]
        for names in SOUND.values():
            shutil.copy(os.path.join(harness.CLIPS, names[0]), self.path("sound_" + names[0]))
            good.append("sound_" + names[0])
        same = {"question": "Gì?"}  # so that the names do not matter
        alone = self.answer(self.questions([(name, name, same) for name in good]), frames=2)
        self.assertEqual(alone.status, 0, alone)
        expected = alone.journal()
        counts, n_runs, n_good, began = collections.Counter(), 0, 0, time.monotonic()
        kept = tempfile.mkdtemp(prefix="lowbeam-mutations-")
        for first in range(0, N, A_RUN):
            videos = []
            for i in range(first, min(N, first + A_RUN)):
                name, data = damaged(i, files)
                self.write(name, data)
                videos.append(name)
            spread = list(videos)
            for i, name in enumerate(good):
                spread.insert((i + 1) * len(spread) // len(good), name)
            run = self.answer(self.questions([(name, name, same) for name in spread]), frames=2)
            try:
                self.assertIn(run.status, (0, 3), run)
                self.assertEqual([row["id"] for row in run.rows()], spread)
                self.check_good(run, expected, videos)
                journal = run.journal()
                for name in videos:
                    error = journal[name]["error"]
                    if error:
                        self.assertIn(name, error)
                        self.assertTrue(re.fullmatch(r"[^\x00-\x1f\x7f]+", error), error)
                    counts[cause(error) if error else "answered"] += 1
            except AssertionError:
                for name in videos:
                    shutil.copy(self.path(name), kept)
                print(f"files {videos[0]} to {videos[-1]} are kept in {kept}")
                raise
            for name in videos:
                if counts["ended by the filter"] and "SIGSYS" in (journal[name]["error"] or ""):
                    shutil.copy(self.path(name), kept)
                    print(f"{name} met the filter; kept in {kept}")
                os.remove(self.path(name))
            n_runs += 1
            n_good += len(good)
        with os.scandir(kept) as entries:
            if not any(entries):
                os.rmdir(kept)
        print(f"{N} damaged files of {len(SOUND)} containers in {n_runs} runs, seed {SEED}, "
              f"{time.monotonic() - began:.0f} s: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))
        print(f"0 runs lost, 0 of {n_good} answers of sound videos changed")
        self.assertEqual(counts["ended by the filter"], 0, f"see {kept}")


if __name__ == "__main__":
    harness.main()
