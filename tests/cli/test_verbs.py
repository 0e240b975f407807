#!/usr/bin/env python3
"""The program's verbs, their help and wrong usage; `lowbeam frames`; the example that stands on lowbeam.h."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "run"))
import harness  # noqa: E402

EXAMPLE = os.path.join(harness.BUILD, "examples", "answer_one")


class Usage(harness.Test):
    def lowbeam(self, *arguments, **more):
        return self.run_program([harness.LOWBEAM, *arguments], **more)

    def test_help_of_every_verb(self):
        for arguments in (["--help"], ["-h"], ["help"], ["answer", "--help"], ["frames", "--help"], ["plan", "--help"],
                          ["answer", "x.json", "-h", "--samples", "3"]):
            run = self.lowbeam(*arguments)
            self.assertEqual((run.status, run.err), (0, ""), run)
            verb = next((a for a in arguments if a in ("frames", "plan")), "answer")
            self.assertIn("lowbeam " + verb, run.out)
            self.assertLess(max(map(len, run.out.splitlines())), 125, run)
        run = self.lowbeam("answer", "--help")
        for option in ("--model", "--mmproj", "--videos", "--num-frames", "--max-tiles", "--prompt", "--system",
                       "--max-new-tokens", "--answer", "--no-reuse", "--keep-going", "--device", "--dump", "--samples",
                       "--out", "--columns", "--from", "--to", "--allow-outside", "--detector", "--labels",
                       "--box-threshold", "--text-threshold", "--max-detections", "--vram", "--allow",
                       "--load_in_8bit", "--kv-bits", "--trace"):
            self.assertIn(option + " ", run.out.replace("\n", " \n"))
        self.assertIn("[8]", next(line for line in run.out.splitlines() if "--num-frames" in line))
        self.assertRegex(self.lowbeam("--version").out, r"^lowbeam \d+\.\d+\.\d+\n$")

    def test_wrong_usage(self):
        self.assertEqual(self.lowbeam().status, 2)
        for arguments in (["fly"], ["answer"], ["answer", "a", "b"], ["answer", "a", "--nothing"], ["answer", "a", "-x"],
                          ["answer", "a", "--num-frames", "0"], ["answer", "a", "--num-frames", "1025"],
                          ["answer", "a", "--num-frames", "eight"], ["answer", "a", "--num-frames"],
                          ["answer", "a", "--max-tiles=10000"], ["answer", "a", "--exact=yes"],
                          ["answer", "a", "--answer", "both"], ["answer", "a", "--from", "soon"],
                          ["answer", "a", "--batch", "0"], ["answer", "a", "--samples", "-1"],
                          ["answer", "a", "--use_grounding_dino=yes"], ["answer", "a", "--vram", "much"],
                          ["answer", "a", "--allow", "anything"], ["answer", "a", "--weight-bits", "5"],
                          ["answer", "a", "--kv-bits", "4"], ["answer", "a", "--kv-bits", "8", "--exact"],
                          ["answer", "a", "--json"], ["plan"], ["plan", "a", "--vram", "1GiB,"],
                          ["answer", "a", "--detection_threshold", "3"], ["answer", "a", "--labels", "b"],
                          ["answer", "a", "--max_detections_per_frame", "0"], ["answer", "a", "--detector"], ["frames"], ["frames", "a", "b"],
                          ["frames", "a", "--tile-size", "3"], ["frames", "a", "--model", "x"]):
            with self.subTest(arguments):
                run = self.lowbeam(*arguments)
                self.assertEqual((run.status, run.out), (2, ""), run)
                self.assertEqual(len(run.err.splitlines()), 1, run)
                self.assertTrue(run.err.startswith("lowbeam: "), run)

    def test_standard_streams_that_are_closed(self):
        path = self.questions([("q", "v0")])
        command, csv_path = self.command(path)
        quoted = " ".join(f"'{word}'" for word in command)
        for closed in (">&-", "<&-", "2>&-", "<&- >&- 2>&-"):
            with self.subTest(closed):
                run = self.run_program(["/bin/sh", "-c", f"exec {quoted} {closed}"], csv_path)
                self.assertEqual(run.status, 0, run)
                self.assertEqual(len(run.rows()), 1)
                os.remove(csv_path)
                os.remove(csv_path[:-4] + ".db")


class Frames(harness.Test):
    def frames(self, *arguments, **more):
        return self.run_program([harness.LOWBEAM, "frames", *arguments], **more)

    def test_json_on_stdout(self):
        run = self.frames("v0", "-n", "2", "--max-tiles", "2")
        self.assertEqual((run.status, run.err), (0, ""), run)
        told = json.loads(run.out)
        self.assertEqual((told["video"], told["n_total"], told["fps"], told["tile_size"]), ("v0", 4, 1, 448))
        self.assertEqual(told["n_tiles"], sum(frame["tiles"] for frame in told["frames"]))
        self.assertEqual([(f["index"], f["time_s"], f["width"], f["height"]) for f in told["frames"]],
                         [(0, 0, 48, 32), (2, 2, 48, 32)])

    def test_bounds(self):
        # pictures count as one a second; L = 3: start + int(seg / 2 + round(seg * i)), by design.md's formula
        for bounds, expected in (((), [0, 2]), (("--from", "2"), [2, 2]), (("--to", "1"), [0, 0]),
                                 (("--from", "1", "--to", "3"), [1, 2]), (("--to=99",), [0, 2])):
            with self.subTest(bounds):
                run = self.frames("v0", "-n2", *bounds)
                self.assertEqual(run.status, 0, run)
                self.assertEqual([frame["index"] for frame in json.loads(run.out)["frames"]], expected)

    def test_pictures(self):
        run = self.frames("v1", "--num_frames", "2", "--max-tiles", "6", "--out", "out/deep")
        self.assertEqual(run.status, 0, run)
        with open(self.path("out", "deep", "frames.json"), encoding="utf-8") as file:
            told = json.load(file)
        per_frame = told["frames"][0]["tiles"]
        self.assertGreater(per_frame, 2)
        expected = {"frames.json"}
        for i in range(2):
            expected |= {f"frame_{i:02}.png"} | {f"frame_{i:02}_tile_{k:02}.png" for k in range(per_frame)}
        self.assertEqual(set(os.listdir(self.path("out", "deep"))), expected)
        # what was written is what lowbeam reads: the same frame once more
        os.mkdir(self.path("again"))
        os.rename(self.path("out", "deep", "frame_01.png"), self.path("again", "0.png"))
        self.assertEqual(self.frames("again", "-n", "1", "--out", "out/again").status, 0)
        with open(self.path("again", "0.png"), "rb") as one, open(self.path("out", "again", "frame_00.png"), "rb") as two:
            self.assertEqual(one.read(), two.read())

    def test_path_that_is_not_utf8(self):
        odd = b"v\xff"
        os.rename(self.path("v0"), os.path.join(os.fsencode(self.folder), odd))
        run = self.frames(os.fsdecode(odd), "-n", "1")
        self.assertEqual(run.status, 0, run)
        self.assertEqual(json.loads(run.out)["video"], "v\ufffd")

    def test_clip(self):
        run = self.frames(os.path.join(harness.CLIPS, "h264_short.mp4"))
        self.assertEqual(run.status, 0, run)
        self.assertEqual(len(json.loads(run.out)["frames"]), 8)

    def test_what_cannot_be_shown(self):
        self.write("text.mp4", "no video")
        os.mkfifo(self.path("fifo"))
        for video, word in (("none.mp4", "No such file"), ("text.mp4", "text.mp4"), ("fifo", "FIFO")):
            run = self.frames(video)
            self.assertEqual((run.status, run.out), (1, ""), run)
            self.assertEqual(len(run.err.splitlines()), 1, run)
            self.assertTrue(run.err.startswith(f"lowbeam: {video}: "), run)
            self.assertIn(word, run.err)
        run = self.frames("v0", "--out", "text.mp4/x")
        self.assertEqual(run.status, 1, run)
        self.assertIn("text.mp4", run.err)
        self.assertEqual(self.frames("v0", "--from", "2", "--to", "1").status, 2)

    def test_full_disk(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full")
        with open("/dev/full", "wb") as full:
            run = self.frames("v0", stdout=full)
        self.assertEqual(run.status, 1, run)
        self.assertIn("No space left", run.err)


class Example(harness.Test):
    def ask(self, *arguments):
        return self.run_program([EXAMPLE, *harness.model_files(), *arguments])

    def test_prints_a_letter(self):
        run = self.ask("v0", "Có gì?", "A. xe", "B. biển báo", "C. đèn", "D. không")
        self.assertEqual(run.status, 0, run)
        self.assertRegex(run.out, r"^[A-D] \(\d+ %\): [A-D]\n$")

    def test_says_what_is_wrong(self):
        run = self.ask("none.mp4", "Có gì?", "xe", "người")
        self.assertEqual((run.status, run.out), (1, ""), run)
        self.assertIn("none.mp4: No such file", run.err)
        run = self.run_program([EXAMPLE, "none.gguf", harness.model_files()[1], "v0", "?", "a", "b"])
        self.assertEqual((run.status, run.out), (1, ""), run)
        self.assertIn("none.gguf", run.err)
        run = self.ask("v0", "?", *"abcdefghi")
        self.assertEqual(run.status, 1, run)
        self.assertIn("9 choices", run.err)
        self.assertEqual(self.run_program([EXAMPLE]).status, 2)


if __name__ == "__main__":
    harness.main()
