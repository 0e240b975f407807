#!/usr/bin/env python3
"""--trace and the VRAM lines: every allocation that is entered is taken out again, the sums are the ledger's, phases and
videos are named, and the plan's rows are what was measured."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "run"))
import harness

PHASES = {"load", "detect", "encode", "prompt", "generate"}


class Trace(harness.Test):
    def check(self, *options):
        pairs = [("q0", "v0"), ("q1", "v0"), ("q2", "v1"), ("q3", "v2")]
        trace = self.path("trace.jsonl")
        run = self.answer(self.questions(pairs), "--trace", trace, *options)
        self.assertEqual(run.status, 0, run)
        with open(trace, encoding="utf-8") as file:
            events = [json.loads(line) for line in file]
        held, peak, videos, phases = {}, {}, set(), set()
        for event in events:
            self.assertEqual(set(event), {"t", "pid", "event", "device", "component", "bytes", "held", "phase", "video"})
            self.assertIn(event["event"], ("add", "sub"))
            self.assertIn(event["phase"], PHASES)
            self.assertGreater(event["bytes"], 0)
            place = event["pid"], event["device"]
            mine = held.setdefault(place, {})
            sign = 1 if event["event"] == "add" else -1
            mine[event["component"]] = mine.get(event["component"], 0) + sign * event["bytes"]
            self.assertGreaterEqual(mine[event["component"]], 0, event)
            self.assertEqual(sum(mine.values()), event["held"], event)  # the ledger's own sum
            peak[place] = max(peak.get(place, 0), event["held"])
            videos.add(os.path.basename(event["video"]))
            phases.add(event["phase"])
        for place, components in held.items():
            self.assertFalse(any(components.values()), f"{place}: not taken out again: {components}")
        pids = {pid for pid, _ in held}
        self.assertEqual(len(pids), 2, "events of lowbeam and of its engine")
        engine, = (pid for pid, device in held if device == 0)
        self.assertTrue(any(pid != engine for pid in pids))
        self.assertLessEqual({"load", "encode"}, phases)
        self.assertTrue(videos & {"v0", "v1", "v2"}, videos)
        # the table that the run ends with: planned against measured, by component and together
        rows = re.findall(r"^  (\S.*?) +(\d+\.\d\d) +(\d+\.\d\d)$", run.err + run.out, re.M)
        self.assertGreaterEqual(len(rows), 5, run)
        for name, planned, measured in rows:
            # libllama tells its weights, cache and activations to 0.01 MiB only, which a sum of them can show; the plan adds
            # half of that to the activations
            most = {"peak": 0.021, "language activations": 0.011}.get(name, 0.0001)
            self.assertAlmostEqual(float(planned), float(measured), delta=most, msg=f"{name} {options}\n{run}")
        together, = (float(measured) for name, _, measured in rows if name == "peak")
        self.assertAlmostEqual(together, peak[engine, 0] / 2**20, delta=0.006)
        # [VRAM ...] Allocated: is the ledger's, at the end
        allocated = [float(x) for x in re.findall(r"\[VRAM [^]]*\] Allocated: (\d+\.\d\d)GB", run.err + run.out)]
        self.assertGreaterEqual(len(allocated), 3, run)
        self.assertLessEqual(max(allocated), peak[engine, 0] / 1e9 + 0.006)
        self.assertGreater(min(allocated), 0)

    def test_everything_stays(self):
        self.check("--vram", "1GiB")

    def test_little_room(self):
        self.check("--vram", "82MiB")

    def test_detector(self):
        self.check("--vram", "1GiB", "--detector", harness.detector_file(), "--box-threshold", "0")

    def test_detector_and_little_room(self):
        self.check("--vram", "120MiB", "--detector", harness.detector_file(), "--box-threshold", "0", "-n", "2")


if __name__ == "__main__":
    harness.main()
