#!/usr/bin/env python3
"""When the device runs out of memory: another engine with the next smaller plan is asked the same again, then that question
is given up, and the run goes on. The faults are injected into the engine child (LOWBEAM_TEST_FAULT in child_main.c)."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "run"))
import harness


class Starved(harness.Test):
    def six(self):
        return self.questions([(f"q{i}", f"v{i // 2}") for i in range(6)])

    def check_some_times(self, kind, times):
        path = self.six()
        quiet = self.answer(path, "--exact")
        self.assertEqual(quiet.status, 0, quiet)
        count = self.path("count")
        run = self.answer(path, "--exact", env={"LOWBEAM_TEST_FAULT": f"{kind}:q2:{count}:{times}"})
        self.assertEqual(run.status, 0, run)
        self.assertEqual(os.path.getsize(count), times)
        self.assertEqual(run.err.count("starting another one"), times, run)
        rows = run.journal()
        for i in ("q0", "q1"):  # answered before, as everything would be
            self.assertFalse(rows[i]["adapted"], rows[i])
        for i in ("q2", "q3", "q4", "q5"):  # by the engine that took its place
            self.assertTrue(rows[i]["adapted"], rows[i])
            self.assertIsNone(rows[i]["error"])
        self.assertEqual(run.answers(), quiet.answers())
        self.assert_close(quiet.logits(), run.logits())

    def test_engine_says_so(self):
        self.check_some_times("oom", 1)

    def test_library_aborts_twice(self):
        self.check_some_times("abort-oom", 2)

    def check_endless(self, kind):
        # small from the beginning, so that the smallest plan is near
        run = self.answer(self.six(), "--batch", "2", "--ubatch", "64", env={"LOWBEAM_TEST_FAULT": f"{kind}:q2"})
        self.assertEqual(run.status, 3, run)
        self.assert_fallback(run, "q2", "test fault")
        self.assertEqual([i for i, row in run.journal().items() if row["error"]], ["q2"], run)

    def test_endless_engine_says_so(self):
        self.check_endless("oom")

    def test_endless_library_aborts(self):
        self.check_endless("abort-oom")

    def test_every_question_has_no_memory(self):
        path = self.questions([(f"q{i}", f"v{i // 2}") for i in range(4)])
        run = self.answer(path, "--batch", "1", "--ubatch", "64", env={"LOWBEAM_TEST_FAULT": "oom:*"})
        self.assertEqual(run.status, 3, run)
        self.assertEqual(len(run.rows()), 4)
        for i in range(4):
            self.assert_fallback(run, f"q{i}", "no room on the device")


if __name__ == "__main__":
    harness.main()
