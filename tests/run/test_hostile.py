#!/usr/bin/env python3
"""Videos that crash, hang, eat memory or lie among good ones (tests/video/hostile_decode.c decodes them): each costs its own
question the answer, no other."""
import os
import time

import harness

HOSTILE = os.path.join(harness.BUILD, "tests", "hostile_decode")

# what the video makes its decoder do: words of the cause
BAD = {"crash": "SIGSEGV", "abort": "SIGABRT", "vanish": "without an answer", "die-late": "SIGBUS", "lie": "slot 77",
       "hang": "no progress for 1 s", "hang-late": "no progress for 1 s", "spin": "counting the frames",
       "spin-late": "frame 2 of 2", "try fork": "SIGSYS", "try socket": "SIGSYS", "try open": "not permitted"}


class Hostile(harness.Test):
    def ask(self, words, **more):
        """One question a video; all good videos hold the same word, so each must get the same logits."""
        names = []
        for i, word in enumerate(words):
            names.append(f"{i:03}.mp4")
            self.write(names[-1], word)
        return names, self.answer(self.questions([(f"q{i:03}", name, {"question": "Gì?"}) for i, name in enumerate(names)]),
                                  "--decode-timeout", "1", frames=2, env={"LOWBEAM_DECODE": HOSTILE}, **more)

    def test_bad_videos_among_good_ones(self):
        words = ["good"]
        for word in BAD:
            words += [word, "good"]
        _, alone = self.ask(["good"])
        self.assertEqual(alone.status, 0, alone)
        expected, = alone.journal().values()
        names, run = self.ask(words)
        self.assertEqual(run.status, 3, run)
        journal = run.journal()
        self.assertEqual(len(journal), len(words))
        for i, word in enumerate(words):
            if word in BAD:
                self.assert_fallback(run, f"q{i:03}", names[i], BAD[word])
            else:
                row = journal[f"q{i:03}"]
                self.assertIsNone(row["error"], run)
                for field in ("answer", "raw_response", "letter_logits"):
                    self.assertEqual(row[field], expected[field], f"{names[i]} after {words[i - 1]}")
        print(f"{len(BAD)} bad videos, {len(words) - len(BAD)} good ones, 0 lost, 0 changed")

    def test_memory_ends(self):
        if "ASAN_OPTIONS" in os.environ or "TSAN_OPTIONS" in os.environ:
            self.skipTest("a sanitizer needs more addresses than the limit")
        words = ["good", "reserve", "good"]
        names, run = self.ask(words)
        self.assertEqual(run.status, 3, run)
        self.assert_fallback(run, "q001", names[1], "no memory after")
        self.assertEqual([row["error"] is None for row in run.journal().values()], [True, False, True], run)

    def test_hangs_in_a_row_are_waited_for_side_by_side(self):
        words = ["hang"] * 4 + ["good"] * 2
        began = time.monotonic()
        names, run = self.ask(words)
        self.assertEqual(run.status, 3, run)
        for i in range(4):
            self.assert_fallback(run, f"q{i:03}", names[i], "no progress")
        print(f"4 hangs of 1 s each: the run took {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    harness.main()
