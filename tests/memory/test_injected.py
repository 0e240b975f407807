#!/usr/bin/env python3
"""Every call of lowbeam's own that can fail fails in turn (inject_faults.c): some of them here, for about
LOWBEAM_FAULT_SECONDS (8) a scenario; all of them in make soak, where that is 0."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "run"))
import harness

SECONDS = os.environ.get("LOWBEAM_FAULT_SECONDS", "8")
PROGRAM = os.path.join(harness.BUILD, "tests", "inject_faults")


class Faults(harness.Test):
    def check(self, scenario, *options):
        model, mmproj = harness.model_files()
        questions = self.questions([("p", "v0"), ("q", "v0"), ("r", "v1")])
        command = [PROGRAM, scenario, "--model", model, "--mmproj", mmproj, "--video", self.path("v0"), "--video",
                   self.path("v1"), "--questions", questions, "--videos", self.folder, "--program", os.path.join(harness.BUILD, "tests", "fake_child"),
                   "--folder", self.folder, "--seconds", SECONDS, *options]
        env = {**self.environment({"LOWBEAM_DECODE": os.path.join(harness.BUILD, "lowbeam-decode")})}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                              timeout=3 * 3600, check=False)
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        run = harness.Run(command, done.returncode, out, err)
        self.check_sane(run)
        self.assertEqual(done.returncode, 0, run)
        print("\n".join(line for line in out.splitlines() if " faults " in line), flush=True)

    def test_opening(self):
        # Each fault here loads both models anew, and a whole run has not been seen to its end yet (docs/safety.md).
        if "LOWBEAM_FAULT_SECONDS" not in os.environ:
            self.skipTest("only in make soak, where it has its time")
        self.check("open", "--detector", harness.detector_file())

    def test_asking(self):
        self.check("ask")

    def test_asking_with_a_detector(self):
        self.check("ask", "--detector", harness.detector_file())

    def test_asking_where_all_that_can_rest_rests(self):
        self.check("ask", "--rest", "--detector", harness.detector_file())

    def test_video_file(self):
        clip = os.path.join(harness.CLIPS, "h264_short.mp4")
        self.check("ask", "--video", clip, "--video", clip)

    def test_run(self):
        self.check("run")


if __name__ == "__main__":
    harness.main()
