#!/usr/bin/env python3
"""Weights of 8 and 4 bits and a q8_0 KV cache, with the model that ships: made once, kept where they belong, said beside the
answers, held as planned to the last row; and what becomes of a folder that cannot be written or a maker that was killed."""
import glob
import json
import os
import re
import shutil

import harness

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAMPLES = os.path.join(TOP, "samples")
MMPROJ = os.path.join(TOP, "models", "mmproj-lowbeam-small.gguf")


class Bits(harness.Test):
    def setUp(self):
        super().setUp()
        self.model = shutil.copy(os.path.join(TOP, "models", "lowbeam-small.gguf"), self.path("small.gguf"))
        with open(os.path.join(SAMPLES, "questions.json"), encoding="utf-8") as file:
            self.truth = {q["id"]: q["answer"][0] for q in json.load(file)["data"][:3]}

    def ask(self, *options):
        return self.answer(os.path.join(SAMPLES, "questions.json"), "--videos", SAMPLES, "--samples", "3", *options, frames=8,
                           model=self.model, mmproj=MMPROJ)

    def made(self, *folder):
        return [os.path.basename(path) for path in sorted(glob.glob(self.path(*folder, "small-lowbeam-*")))]

    def check(self, run, adapted):
        """Held as planned, in all rows, within the 0.01 MiB that libllama prints; said beside each answer; and
        no more than one of the answers another than the truth."""
        self.assertEqual(run.status, 0, run)
        rows = re.findall(r"^  (\S.*?) +([0-9.]+) +([0-9.]+)$", run.out, re.M)
        self.assertGreaterEqual(len(rows), 6, run)
        for name, planned, measured in rows:
            self.assertAlmostEqual(float(planned), float(measured), delta=0.011, msg=f"{name}: {run}")
        for row in run.journal().values():
            self.assertEqual(row["adapted"], adapted)
        right = sum(run.answers()[i] == letter for i, letter in self.truth.items())
        self.assertGreaterEqual(right, len(self.truth) - 1, run)
        return dict((name, float(measured)) for name, _, measured in rows)

    def test_fewer_bits_hold_less(self):
        whole = self.check(self.ask(), None)
        q8 = self.check(self.ask("--load_in_8bit"), "8-bit weights (asked for; may change answers)")
        q4 = self.check(self.ask("--weight-bits", "4"), "4-bit weights (asked for; may change answers)")
        kv = self.check(self.ask("--kv-bits", "8"), "q8_0 KV cache (asked for; may change answers)")
        both = self.check(self.ask("--weight-bits", "4", "--kv-bits", "8"), "4-bit weights (asked for; may change answers); "
                          "q8_0 KV cache (asked for; may change answers)")
        self.assertLess(q8["language weights"], 0.54 * whole["language weights"])
        self.assertLess(q4["language weights"], 0.6 * q8["language weights"])
        self.assertAlmostEqual(kv["KV cache"], whole["KV cache"] * 1.0625 / 2, delta=0.011)
        self.assertEqual((both["language weights"], both["KV cache"]), (q4["language weights"], kv["KV cache"]))

    def test_allowed_is_taken_only_where_it_is_needed(self):
        allow = ["--allow", "weights-q8"]
        command, _ = self.command(os.path.join(SAMPLES, "questions.json"), "--videos", SAMPLES, "--samples", "3", frames=8,
                                  model=self.model, mmproj=MMPROJ)
        plan = self.run_program([command[0], "plan", *command[2:], "--json", "--vram", "1MiB"])
        self.assertEqual(plan.status, 4, plan)
        least = json.loads(plan.out)["smallest_budget"]
        run = self.ask(*allow, "--vram", str(least))
        self.assertEqual(run.status, 0, run)
        self.assertNotIn("allowed", next(iter(run.journal().values()))["adapted"])
        self.assertEqual(self.made(), [])
        run = self.ask("--vram", str(least - 1))
        self.assertEqual(run.status, 4, run)
        run = self.ask(*allow, "--vram", str(least - 1))
        self.assertEqual(run.status, 0, run)
        self.assertIn("8-bit weights (allowed", next(iter(run.journal().values()))["adapted"])
        self.assertEqual(len(self.made()), 1)

    def test_made_once_beside_the_model(self):
        self.write("small-lowbeam-q8_0-00000000.gguf.1.partial", "of a process that is there")
        first = self.ask("--load_in_8bit")
        self.assertIn("making 8-bit weights, once", first.err)
        made = [name for name in self.made() if not name.endswith(".partial")]
        self.assertEqual(len(made), 1)
        self.assertRegex(made[0], r"^small-lowbeam-q8_0-[0-9a-f]{8}\.gguf$")
        again = self.ask("--load_in_8bit")
        self.assertNotIn("making", again.err)
        self.assertEqual(again.rows(), first.rows())
        os.utime(self.model, (1, 1))  # another model of that name
        self.assertIn("making 8-bit weights, once", self.ask("--load_in_8bit").err)

    def test_what_a_killed_maker_left_is_removed(self):
        self.ask("--weight-bits", "4", "--cache-dir", self.path("kept"))
        made, = self.made("kept")
        os.remove(self.path("kept", made))
        gone, old = 2147483647, (1, 1)  # a process number beyond what Linux gives; seconds
        os.utime(self.write(f"kept/{made}.{gone}.partial", "half a model"), old)
        os.utime(self.write(f"kept/{made}.1.partial", "a process that is alive"), old)
        self.write(f"kept/{made}.{gone - 1}.partial", "perhaps written elsewhere now")
        self.assertEqual(self.ask("--weight-bits", "4", "--cache-dir", self.path("kept")).status, 0)
        self.assertEqual(self.made("kept"), [made, made + ".1.partial", f"{made}.{gone - 1}.partial"])

    def test_cache_folder_is_made(self):
        run = self.ask("--load_in_8bit", "--cache-dir", self.path("not", "there", "yet"))
        self.assertEqual(run.status, 0, run)
        self.assertEqual(self.made(), [])
        self.assertEqual(len(self.made("not", "there", "yet")), 1)

    def test_folder_that_cannot_be_made(self):
        run = self.ask("--load_in_8bit", "--cache-dir", self.write("file", "no folder"))
        self.assertEqual(run.status, 1, run)
        self.assertIn(self.path("file") + ": is there already, and no folder", run.err)
        self.assertFalse(os.path.exists(run.csv_path))

    def test_quantized_already(self):
        self.ask("--load_in_8bit", "--cache-dir", self.path("kept"))
        self.model = self.path("kept", self.made("kept")[0])
        run = self.ask("--weight-bits", "4", "--cache-dir", self.path("kept"))
        self.assertEqual(run.status, 1, run)
        self.assertIn("is quantized already", run.err)
        self.assertIn("is q8_0", run.err)


if __name__ == "__main__":
    harness.main()
