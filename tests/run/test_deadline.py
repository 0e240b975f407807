#!/usr/bin/env python3
"""`lowbeam answer --deadline`: with decoders and models that are too slow for all frames and crops, answers come in time from
fewer, say so, and have looked at something. Where there is time for all, nothing changes."""
import os
import re
import shutil

import harness

SLOW = os.path.join(harness.BUILD, "tests", "libslow.so")
REF = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "video", "ref")
SANITIZED = os.path.basename(harness.BUILD) in ("build-sanitize", "build-tsan")
FRAMES = 8


class Deadline(harness.Test):
    def setUp(self):
        super().setUp()
        for i in range(6):
            shutil.copy(os.path.join(REF, "h264_long_gop.mp4"), self.path(f"clip{i}.mp4"))

    def ask(self, *options, n=6, env=None, frames=FRAMES, pairs=None):
        path = self.questions(pairs or [(f"q{i}", f"clip{i}.mp4") for i in range(n)])
        return self.answer(path, "--max-new-tokens", "4", *options, frames=frames, env=env)

    def slow_decoder(self, ms):
        decoder = os.path.join(harness.BUILD, "lowbeam-decode")
        return {"LOWBEAM_DECODE": self.script(f"slow-{ms}.sh", f"SLOW_FRAME_MS={ms} LD_PRELOAD={SLOW} exec {decoder}")}

    def assert_looked(self, run):
        """No answer is one that nobody looked for: each has its logits and a prompt with frames in it."""
        for row in run.journal().values():
            self.assertIsNone(row["error"], row)
            self.assertTrue(row["letter_logits"], row)
            self.assertGreater(row["n_prompt_tokens"], 0)
            self.assertIn("Frame1: <image>", row["prompt"])

    def frames_of(self, row):
        return len(re.findall(r"^Frame\d+: <image>", row["prompt"], re.M))

    def told(self, run):
        """(deadline, in time, all, slowest, hurried) of the last lines."""
        found = re.search(r"^Deadline (\S+) s: (\d+) of (\d+) in time, the slowest took (\S+) s; (\d+) from less", run.out,
                          re.M)
        self.assertTrue(found, run)
        return float(found[1]), int(found[2]), int(found[3]), float(found[4]), int(found[5])

    def test_time_for_all(self):
        quiet = self.ask(n=2)
        run = self.ask("--deadline", "300s", n=2)
        self.assertEqual(run.status, quiet.status, run)
        self.assertEqual((run.rows(), run.logits()), (quiet.rows(), quiet.logits()))
        deadline, in_time, n, slowest, hurried = self.told(run)
        self.assertEqual((deadline, in_time, n, hurried), (300, 2, 2, 0), run)
        self.assertNotIn("Deadline", quiet.out)
        for row in run.journal().values():
            self.assertIsNone(row["adapted"], row)
            self.assertTrue(0 < row["elapsed_s"] <= slowest + 0.01, row)

    def test_refused(self):
        for text in ("0", "-1", "soon", "nan"):
            self.assert_refused(self.ask("--deadline", text, n=1), "--deadline", status=2)
        run = self.ask("--deadline", "100", n=2)
        again = self.answer(self.path("questions.json"), "--max-new-tokens", "4", "--deadline", "50", "--resume",
                            frames=FRAMES, out=run.csv_path)
        self.assertEqual(again.status, 1, again)
        self.assertIn("--deadline was 100, is 50", again.err)

    def test_slow_decoder(self):
        if SANITIZED:
            self.skipTest("AddressSanitizer has to be loaded first itself")
        # 120 frames in one group of pictures: all up to the last one wanted are decoded, 60 ms each; half of the
        # deadline is for that
        run = self.ask("--deadline", "4", n=4, env=self.slow_decoder(60))
        self.assert_looked(run)
        counts = []
        for row in run.journal().values():
            counts.append(self.frames_of(row))
            self.assertIn(f"--deadline 4s: {counts[-1]} of {FRAMES} frames", row["adapted"])
        _, in_time, n, slowest, hurried = self.told(run)
        print(f"\n  slow decoder: {in_time} of {n} in time, the slowest {slowest} s of 4; frames looked at: {counts}")
        self.assertEqual((n, hurried), (4, 4), run)
        self.assertLess(slowest, 1.25 * 4, run)
        self.assertTrue(all(1 < count < FRAMES for count in counts), counts)
        # without the deadline it takes as long as it takes, and all frames
        whole = self.ask(n=1, env=self.slow_decoder(60))
        row, = whole.journal().values()
        self.assertEqual(self.frames_of(row), FRAMES)
        self.assertGreater(row["elapsed_s"], 2.5)

    def test_decoder_that_cannot_be_in_time(self):
        if SANITIZED:
            self.skipTest("AddressSanitizer has to be loaded first itself")
        # the first frame alone takes longer than there is: it is waited for, answered from, and called late
        run = self.ask("--deadline", "0.5", n=1, env=self.slow_decoder(250))
        self.assert_looked(run)
        row, = run.journal().values()
        self.assertEqual(self.frames_of(row), 1)
        self.assertRegex(row["adapted"], r"--deadline 0.5s: 1 of 8 frames.*it took \d")
        self.assertEqual(self.told(run)[1:3], (0, 1), run)

    def test_decoder_that_hangs_midway(self):
        hostile = os.path.join(harness.BUILD, "tests", "hostile_decode")
        self.write("late.mp4", "hang-late")
        run = self.ask("--deadline", "4", pairs=[("q", "late.mp4")], env={"LOWBEAM_DECODE": hostile})
        self.assert_looked(run)
        row, = run.journal().values()
        self.assertEqual(self.frames_of(row), 1)
        self.assertIn("1 of 8 frames", row["adapted"])

    def test_slow_models(self):
        if SANITIZED:
            self.skipTest("AddressSanitizer has to be loaded first itself")
        detector = ("--detector", harness.detector_file(), "--box-threshold", "0")
        for name, env, deadline, expected in (
                # a graph is one tile or one picture: 8 pictures and 48 tiles of 100 ms, and what the work itself takes
                ("slow vision", {"SLOW_GRAPH_MS": "100"}, 5, "frames|crops|detector"),
                # 256 tokens a tile, 48 tiles
                ("slow language model", {"SLOW_TOKEN_MS": "1"}, 6, "frames|crops|detector"),
                # so slow that not even the least is in time; a text that goes on is cut
                ("hopeless", {"SLOW_GRAPH_MS": "300"}, 0.3, "1 of 8 frames, without the detector, text ended.*it took")):
            run = self.ask(*detector, "--deadline", str(deadline), n=2, env={"LD_PRELOAD": SLOW, **env})
            self.assert_looked(run)
            _, in_time, n, slowest, hurried = self.told(run)
            adapted = [row["adapted"] for row in run.journal().values()]
            print(f"\n  {name}: {in_time} of {n} in time, the slowest {slowest} s of {deadline}: {adapted[-1]}")
            for text in adapted:
                self.assertRegex(text, expected)
            self.assertEqual((n, hurried), (2, 2), run)
            if name == "hopeless":
                self.assertEqual(in_time, 0, run)
            else:  # speeds are measured: on a machine that others use the next moment may be slower
                self.assertLess(slowest, 1.25 * deadline, run)


if __name__ == "__main__":
    harness.main()
