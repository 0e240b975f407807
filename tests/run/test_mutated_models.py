#!/usr/bin/env python3
"""Model files damaged at random: lowbeam itself never dies of one. Where a library aborts, it does so in the engine process,
and one line says so. Environment: LOWBEAM_MODEL_MUTATIONS, how many (24; make soak takes 600); LOWBEAM_MUTATIONS_SEED (1)."""
import collections
import os
import random
import shutil
import struct
import tempfile

import harness

N = int(os.environ.get("LOWBEAM_MODEL_MUTATIONS", "24"))
SEED = int(os.environ.get("LOWBEAM_MUTATIONS_SEED", "1"))
NUMBERS = (0, 1, 2, 7, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 40, (1 << 63) - 1, 1 << 63,
           (1 << 64) - 1)


def data_offset(data):
    """Where the tensors' bytes begin: after the last tensor's name in the header, near enough."""
    at = data.rfind(b".weight", 0, len(data))
    return min(len(data), (at if at > 0 else 4096) + 64)


def marks(data, end):
    """Where values stand: behind keys and tensor names, which is where damage is not seen at once."""
    found = []
    for word in (b"general.", b"qwen2.", b"clip.", b"tokenizer.ggml.", b"blk.", b"mm.", b"output", b"token_embd",
                 b"gdino.", b"dec.", b"enc.", b"swin.", b"bert."):
        at = data.find(word)
        while 0 <= at < end:
            found.append(at)
            at = data.find(word, at + 1)
    return found


def damage(data, rng, places, end):
    """Changes: [(at, bytes)]."""
    changes = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        where = rng.random()
        if where < 0.6:
            at = rng.choice(places) + rng.randrange(-8, 72)
        elif where < 0.8:
            at = rng.randrange(64)
        else:
            at = rng.randrange(end)
        at = max(0, min(at, end - 8))
        number = rng.choice(NUMBERS)
        changes.append((at, rng.choice((bytes([data[at] ^ 1 << rng.randrange(8)]), struct.pack("<I", number & 0xffffffff),
                                        struct.pack("<Q", number), bytes([rng.randrange(256)])))))
    return changes


def patch(path, changes):
    with open(path, "r+b") as file:
        for at, part in changes:
            file.seek(at)
            file.write(part)


class MutatedModels(harness.Test):
    def test_damaged_models(self):
        sources = []
        for path in harness.model_files():
            with open(path, "rb") as file:
                data = file.read()
            end = data_offset(data)
            shutil.copy(path, self.folder)
            sources.append((self.path(os.path.basename(path)), data[:end], marks(data, end), end))
        questions = self.questions([("q", "v0")])
        counts = collections.Counter()
        kept = tempfile.mkdtemp(prefix="lowbeam-models-")
        for i in range(N):
            rng = random.Random(f"{SEED} {i}")
            path, whole, *more = sources[i % 2]
            changes = damage(whole, rng, *more)
            patch(path, changes)
            run = self.answer(questions, **{("model", "mmproj")[i % 2]: path})
            try:
                self.assertIn(run.status, (0, 1, 3, 4), f"number {i}: {run}")
                if run.status == 1:
                    self.assertTrue(run.complaints(), f"number {i}: nothing said: {run}")
                if run.status in (0, 3):
                    self.assertEqual(len(run.rows()), 1, f"number {i}: {run}")
            except AssertionError:
                print("kept:", shutil.copy(path, os.path.join(kept, f"{SEED}-{i}.gguf")))
                raise
            patch(path, [(at, whole[at:at + len(part)]) for at, part in reversed(changes)])
            text = run.err.lower()
            aborted = "signal" in text or "sig" in text and "crash" in text
            counts[{0: "answered", 1: "refused", 3: "answered by fallback", 4: "does not fit"}[run.status] +
                   (" after the engine process died" if aborted else "")] += 1
            if aborted and os.environ.get("LOWBEAM_KEEP_ABORTS"):
                print(i, run.err.strip().splitlines()[-1])
        os.rmdir(kept)
        print(f"{N} damaged model files, seed {SEED}: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))
        print("0 runs lost")

    def test_damaged_detectors(self):
        """`lowbeam detect` has the detector in its own process; with --check-models, in another one first."""
        path = self.path("detector.gguf")
        shutil.copy(harness.detector_file(), path)
        with open(path, "rb") as file:
            data = file.read()
        end = data_offset(data)
        places = marks(data, end)
        command = [harness.LOWBEAM, "detect", self.path("v0", "0.png"), "--detector", path, "--json", "--box-threshold", "0"]
        sound, checked = self.run_program(command), self.run_program([*command, "--check-models"])
        self.assertEqual((sound.status, checked.status), (0, 0), checked)
        self.assertEqual(sound.out, checked.out)
        self.assertTrue(sound.out)
        counts = collections.Counter()
        for i in range(N):
            changes = damage(data[:end], random.Random(f"{SEED} detector {i}"), places, end)
            patch(path, changes)
            run = self.run_program([*command, "--check-models"])
            self.assertIn(run.status, (0, 1), f"number {i}: {changes}\n{run}")
            if run.status == 1:
                self.assertEqual(len(run.complaints()), 1, f"number {i}: {run}")
                self.assertIn("detector.gguf", run.err)
            died = "process of its own" in run.err
            if died and os.environ.get("LOWBEAM_KEEP_ABORTS"):
                print(i, run.err.strip())
            counts["answered" if run.status == 0 else "ended the process that tried it" if died else "refused"] += 1
            patch(path, [(at, data[at:at + len(part)]) for at, part in reversed(changes)])
        print(f"{N} damaged detectors, seed {SEED}: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))
        print("0 runs lost")


if __name__ == "__main__":
    harness.main()
