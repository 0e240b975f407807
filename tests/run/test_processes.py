#!/usr/bin/env python3
"""Processes that die, are killed or are told to stop: the engine child, lowbeam itself, both by Ctrl-C. No answer is lost,
none is made up, nothing hangs, and the CSV is complete or not there."""
import glob
import os
import signal
import time

import harness


class EngineChild(harness.Test):
    def eight(self):
        return self.questions([(f"q{i}", f"v{i // 3}") for i in range(8)])

    def test_one_death_changes_nothing(self):
        path = self.eight()
        quiet = self.answer(path, "--exact")
        self.assertEqual(quiet.status, 0, quiet)
        run = self.answer(path, "--exact", env={"LOWBEAM_TEST_FAULT": f"abort:q4:{self.path('mark')}:1"})
        self.assertEqual(run.status, 0, run)
        self.assertTrue(os.path.exists(self.path("mark")))
        self.assertEqual(len(run.complaints()), 1, run)
        self.assertIn("signal 6", run.err)
        self.assertIn("test fault at question q4", run.err)
        self.assertEqual(run.rows(), quiet.rows())
        self.assertEqual(run.logits(), quiet.logits())  # the same batches: the same numbers to the last bit

    def test_question_that_always_kills_it_is_lost_alone(self):
        path = self.eight()
        quiet = self.answer(path, "--exact")
        run = self.answer(path, "--exact", env={"LOWBEAM_TEST_FAULT": "abort:q3"})
        self.assertEqual(run.status, 3, run)
        self.assert_fallback(run, "q3", "test fault at question q3", "signal 6")
        expected = {**quiet.answers(), "q3": "A"}
        self.assertEqual(run.answers(), expected)
        self.assertEqual([row["error"] is None for row in run.journal().values()], [i != "q3" for i in expected])

    def test_question_that_always_kills_its_batch_is_lost_alone(self):
        path = self.questions([(f"q{i}", "v0") for i in range(12)])
        run = self.answer(path, "--batch", "4", env={"LOWBEAM_TEST_FAULT": "abort:q6"})
        self.assertEqual(run.status, 3, run)
        self.assertEqual([i for i, row in run.journal().items() if row["error"]], ["q6"], run)

    def test_child_that_dies_at_every_question_ends_the_run(self):
        n = 20
        path = self.questions([(f"q{i}", "./" * i + "v0") for i in range(n)])  # a video each
        run = self.answer(path, env={"LOWBEAM_TEST_FAULT": "abort:*"})
        self.assertEqual(run.status, 3, run)
        self.assertEqual(len(run.rows()), n)
        for i in range(n):
            self.assert_fallback(run, f"q{i}", "test fault at question")
        self.assert_fallback(run, f"q{n - 1}", "not asked")
        self.assertLess(run.err.count("starting another one"), n)

    def test_video_that_kills_it_does_not_end_the_run(self):
        # six questions, each of which kills: more deaths than a video is given
        killers = [(f"k{i}", "v0") for i in range(6)]
        path = self.questions(killers + [("good", "v1"), ("fine", "v2")])
        run = self.answer(path, env={"LOWBEAM_TEST_FAULT": "abort:k*"})
        self.assertEqual(run.status, 3, run)
        for i, _ in killers:
            self.assert_fallback(run, i, "test fault at question k")
        self.assertEqual([run.journal()[i]["error"] for i in ("good", "fine")], [None, None])

    def test_killed_from_outside(self):
        path = self.questions([(f"q{i}", "./" * (i // 4) + f"v{i % 4}") for i in range(40)])
        quiet = self.answer(path, "--exact")
        process = self.start(path, "--exact")
        self.wait_for_answers(process, 3)
        child, = harness.children(process.pid, "engine-child")
        os.kill(child, signal.SIGKILL)
        run = self.finish(process)
        self.assertEqual(run.status, 0, run)
        self.assertIn("signal 9", run.err)
        self.assertEqual(run.rows(), quiet.rows())
        self.assertEqual(run.logits(), quiet.logits())

    def test_killed_while_it_loads(self):
        process = self.start(self.eight())
        self.wait_for(lambda: harness.children(process.pid, "engine-child"), "the engine child")
        os.kill(harness.children(process.pid, "engine-child")[0], signal.SIGKILL)
        run = self.finish(process)
        self.assert_refused(run, "signal 9")


class Interrupt(harness.Test):
    def many(self):
        """Long enough to be interrupted: 500 questions, each with a video of its own name."""
        return self.questions([(f"q{i}", "./" * (i // 4) + f"v{i % 4}") for i in range(500)])

    def check_interrupted(self, signal_number, to_group):
        process = self.start(self.many())
        self.wait_for_answers(process, 3)
        child, = harness.children(process.pid, "engine-child")
        (os.killpg if to_group else os.kill)(process.pid, signal_number)
        run = self.finish(process, 20)
        self.assertEqual(run.status, 130, run)
        rows = run.rows()
        self.assertTrue(3 <= len(rows) < 500, len(rows))
        self.assertEqual([row["id"] for row in rows], [f"q{i}" for i in range(len(rows))])
        for row in run.journal().values():
            self.assertIsNone(row["error"], run)  # nothing was made up
        self.assertNotIn("died", run.err)
        self.assertIn("[VRAM End of inference]", run.out)
        self.assertFalse(harness.is_alive(child))

    def test_ctrl_c_writes_what_is_there(self):
        self.check_interrupted(signal.SIGINT, True)

    def test_sigterm_to_lowbeam_alone(self):
        self.check_interrupted(signal.SIGTERM, False)

    def test_sigterm_to_the_group(self):
        self.check_interrupted(signal.SIGTERM, True)

    def test_ctrl_c_while_the_models_load(self):
        process = self.start(self.many())
        self.wait_for(lambda: harness.children(process.pid, "engine-child"), "the engine child")
        os.killpg(process.pid, signal.SIGINT)
        run = self.finish(process, 20)
        self.assertEqual(run.status, 130, run)
        if "interrupted before" in run.err:  # else the models had been loaded already
            self.assert_nothing_left(run)

    def test_ctrl_c_while_a_decoder_hangs(self):
        os.symlink(harness.CLIPS, self.path("clips"))
        path = self.questions([("q0", "v0"), ("q1", "clips/h264_short.mp4"), ("q2", "v1")])
        process = self.start(path, "--allow-outside", env={"LOWBEAM_DECODE": self.script("hang", "sleep 1000")})
        self.wait_for_answers(process, 1)
        os.killpg(process.pid, signal.SIGINT)
        run = self.finish(process, 20)
        self.assertEqual(run.status, 130, run)
        self.assertEqual([row["id"] for row in run.rows()], ["q0"])

    def test_second_ctrl_c_ends_at_once(self):
        # 256 frames of 13 tiles: seconds of encoding at least, in one question, in a child that is stopped at it
        model = harness.with_context(harness.model_files()[0], self.path("large.gguf"), 1 << 20)
        process = self.start(self.questions([("q", "v0")]), "--max-tiles", "12", frames=256, model=model)
        self.wait_for(lambda: any(harness.has_mapped(child, "lowbeam-tiles")
                                  for child in harness.children(process.pid, "engine-child")), "the clip in the child")
        child, = harness.children(process.pid, "engine-child")
        os.kill(child, signal.SIGSTOP)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        self.assertIsNone(process.poll(), "the first one ended it")
        os.killpg(process.pid, signal.SIGINT)
        run = self.finish(process, 5)
        self.assertEqual(run.status, 130, run)
        self.assertFalse(os.path.exists(run.csv_path))
        self.wait_for(lambda: not harness.is_alive(child), "the engine child outlives lowbeam", 10)

    def test_killed_parent_leaves_no_csv_and_no_child(self):
        process = self.start(self.many())
        self.wait_for_answers(process, 3)
        child, = harness.children(process.pid, "engine-child")
        process.kill()
        run = self.finish(process)
        self.wait_for(lambda: not harness.is_alive(child), "the engine child outlives lowbeam", 10)
        self.assertEqual(glob.glob(self.path("*.csv")), [])
        self.assertGreaterEqual(len(run.journal()), 3)  # nothing that was stored is lost


if __name__ == "__main__":
    harness.main()
