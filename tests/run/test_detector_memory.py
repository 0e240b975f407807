#!/usr/bin/env python3
"""What the detector is measured to take before it is loaded is what it takes, to the byte; resting gives it all back."""
import json
import os
import subprocess
import unittest

import harness

DUMP = os.path.join(harness.BUILD, "tests", "dump_memory")


def dump(width, height, n, *options):
    done = subprocess.run([DUMP, harness.detector_file(), str(width), str(height), str(n), *options], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=harness.LIMIT_S)
    if done.returncode:
        raise AssertionError(f"{done.args}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout)


class Memory(unittest.TestCase):
    def test_measured_is_taken(self):
        for width, height, n in ((320, 180, 1), (320, 180, 3), (128, 192, 2), (400, 90, 4)):
            for options in ((), ("--rest",), ("--gathers",)):
                with self.subTest(size=(width, height), n=n, options=options):
                    d = dump(width, height, n, *options)
                    m, rests = d["measured"], "--rest" in options
                    weights = m["weights"] + m["text"]
                    self.assertEqual(d["before"], {"weights": 0, "compute": 0, "host": 0, "staging": 0})
                    self.assertEqual(d["open"]["weights"], m["text"] if rests else weights)
                    self.assertEqual(d["open"]["compute"], 0)
                    self.assertEqual(d["run"]["weights"], weights)
                    self.assertEqual(d["run"]["compute"], m["compute"])
                    self.assertEqual(d["run"]["staging"], m["staging"])
                    self.assertEqual(d["peak_run"], {"weights": weights, "compute": m["compute"]})
                    self.assertEqual(d["peak_load"], {
                        "weights": m["text"] + m["text_encoder"] + (0 if rests else m["weights"]),
                        "compute": m["text_encoder_compute"]})
                    self.assertGreaterEqual(m["largest"], m["compute"])
                    if rests:
                        self.assertEqual((d["rested"]["weights"], d["rested"]["compute"]), (m["text"], 0))
                        self.assertGreater(d["rested"]["host"], 0)
                    else:
                        self.assertEqual(d["rested"], d["run"])
                    self.assertEqual(d["again"], d["run"])
                    self.assertGreater(d["boxes"], 0)
                    self.assertTrue(d["same"], "a run after a rest gives other boxes")
                    self.assertEqual(d["freed"], d["before"])

    def test_more_frames_take_more(self):
        one, four = (dump(320, 180, n)["measured"] for n in (1, 4))
        self.assertEqual(one["weights"], four["weights"])
        self.assertGreater(four["compute"], 2 * one["compute"])

    def test_a_picture_that_is_as_large_as_can_be(self):
        d = dump(160, 96, 2)  # the edges of the file's preprocessing: nothing is resized
        self.assertEqual(d["measured"]["largest"], max(d["measured"]["compute"], dump(96, 160, 2)["measured"]["compute"]))


if __name__ == "__main__":
    unittest.main()
