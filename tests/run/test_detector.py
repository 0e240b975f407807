#!/usr/bin/env python3
"""`lowbeam answer --detector`: what a small random detector finds enters prompt, tiles, dump and journal, the same whatever
shares the work, and its faults are its videos' faults. tests/checks/check_sight.py compares with transformers and Pillow."""
import array
import json
import math
import os
import shutil
import sqlite3

import harness

TILE, TOKENS_PER_TILE = 448, 256
ALL = ("--box-threshold", "0")  # with random weights: every box


class Detector(harness.Test):
    def detect(self, pairs, *options, frames=2, **more):
        return self.answer(self.questions(pairs), "--detector", harness.detector_file(), *options, frames=frames, **more)

    def dumped(self, video, name):
        path = self.path("dump", video, name)
        if name.endswith(".json"):
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        return harness.read_npy(path)

    def test_prompt_tiles_dump_and_journal(self):
        run = self.detect([("q1", "v0"), ("q2", "v0"), ("q3", "v1")], *ALL, "--text-threshold", "0.9", "--dump",
                          self.path("dump"))
        self.assertEqual(run.status, 0, run)
        self.assertEqual(run.complaints(), [], run)
        order = [line.split("]")[0] for line in run.out.splitlines() if line.startswith("[VRAM")]
        self.assertEqual(order, ["[VRAM After InternVL3 model loaded", "[VRAM After Grounding DINO model loaded",
                                 "[VRAM Start of inference", "[VRAM End of inference"])
        self.assertEqual(sorted(os.listdir(self.path("dump", "v0"))),
                         ["detections.json", "embeddings.npy", "frame_index.npy", "frames.npy", "tiles.npy",
                          "tiles_per_frame.npy"])
        indices = array.array("q", self.dumped("v0", "frame_index.npy")[2])
        whole = self.dumped("v0", "detections.json")
        self.assertEqual(list(whole), ["frames"])
        expected = []
        for i, frame in enumerate(whole["frames"]):
            self.assertEqual(list(frame), ["index", "time_s", "width", "height", "detections"])
            self.assertEqual((frame["index"], frame["width"], frame["height"]), (indices[i], 48, 32))
            self.assertEqual(frame["time_s"], float(indices[i]))  # a folder of pictures: one a second
            self.assertEqual(len(frame["detections"]), 5)
            for d in frame["detections"]:
                self.assertEqual(list(d), ["box", "score", "label", "raw_label"])
                x0, y0, x1, y1 = map(int, d["box"])
                self.assertTrue(x1 > x0 and y1 > y0, d)
                self.assertTrue(0 < d["score"] <= 1, d)
            texts = [d["raw_label"] or d["label"] for d in frame["detections"]]
            expected.append(f"Frame{i + 1}: 5 ({', '.join(texts)})")
        for row in run.rows()[:2]:
            self.assertIn("\n" + "\n".join(expected) + "\n\n", row["prompt"])
        # each frame is one tile here, and has five crops
        self.assertEqual(self.dumped("v0", "tiles_per_frame.npy")[2], array.array("i", [6, 6]).tobytes())
        dtype, shape, tiles = self.dumped("v0", "tiles.npy")
        self.assertEqual((dtype, shape, len(tiles)), ("|u1", (12, TILE, TILE, 3), 12 * TILE * TILE * 3))
        self.assertEqual(self.dumped("v0", "embeddings.npy")[1][0], 12 * TOKENS_PER_TILE)
        with open(self.path("dump", "q1", "prompt.txt"), encoding="utf-8") as file:
            text = file.read()
        self.assertEqual(text.count("<IMG_CONTEXT>"), 12 * TOKENS_PER_TILE)
        self.assertEqual(text.count("<img>"), 2)
        journal = run.journal()
        for row in journal.values():
            self.assertGreater(row["detect_s"], 0)
        db = sqlite3.connect(run.csv_path[:-4] + ".db")
        settings = dict(db.execute("SELECT name, value FROM run"))
        db.close()
        self.assertEqual([settings[name] for name in ("detector", "labels", "box_threshold", "max_detections")],
                         [harness.detector_file(), "(built in)", "0", "5"])
        self.assertEqual(float(settings["text_threshold"]), 0.899999976)

    def test_a_frames_own_tiles_come_first(self):
        pairs = [("q", "v0")]
        plain = self.answer(self.questions(pairs), "--dump", self.path("plain"), "--max-tiles", "6", frames=2)
        run = self.detect(pairs, *ALL, "--dump", self.path("dump"), "--max-tiles", "6", "--max-detections", "2")
        self.assertEqual((plain.status, run.status), (0, 0), run)
        n_bytes = TILE * TILE * 3
        own = harness.read_npy(self.path("plain", "v0", "tiles.npy"))[2]
        own = [own[i:i + n_bytes] for i in range(0, len(own), n_bytes)]
        tiles = self.dumped("v0", "tiles.npy")[2]
        tiles = [tiles[i:i + n_bytes] for i in range(0, len(tiles), n_bytes)]
        self.assertEqual((len(own), len(tiles)), (14, 18))  # 3x2 tiles and a thumbnail a frame, then two crops
        self.assertEqual(tiles[0:7] + tiles[9:16], own)
        self.assertFalse(set(tiles[7:9] + tiles[16:]) & set(own))

    def test_reuse_and_batches_change_nothing(self):
        pairs = [(f"q{i}", f"v{i % 2}") for i in range(4)]
        runs = {name: self.detect(pairs, *ALL, "--max-detections", "2", "--text-threshold", "1", "--exact", *options)
                for name, options in {"default": (), "whole": ("--no-reuse",),
                                      "small batches": ("--batch", "1", "--detector-batch", "1")}.items()}
        first = runs.pop("default")
        self.assertEqual(first.status, 0, first)
        for name, run in runs.items():
            with self.subTest(name):
                self.assertEqual(run.answers(), first.answers())
                self.assert_close(run.logits(), first.logits())
                self.assertEqual([row["prompt"] for row in run.rows()], [row["prompt"] for row in first.rows()])

    def test_frames_that_repeat_are_seen_once_and_shown_each_time(self):
        run = self.detect([("q", "v0")], *ALL, "--max-detections", "1", "--dump", self.path("dump"), frames=6)
        self.assertEqual(run.status, 0, run)
        indices = array.array("q", self.dumped("v0", "frame_index.npy")[2])
        self.assertLess(len(set(indices)), 6)
        frames = self.dumped("v0", "detections.json")["frames"]
        tiles, n_bytes = self.dumped("v0", "tiles.npy")[2], TILE * TILE * 3
        for i in range(1, 6):
            same = indices[i] == indices[i - 1]
            self.assertEqual(frames[i]["detections"] == frames[i - 1]["detections"], same)
            crops = [tiles[k * n_bytes:(k + 1) * n_bytes] for k in (2 * i - 1, 2 * i + 1)]
            self.assertEqual(crops[0] == crops[1], same)

    def test_old_spellings(self):
        model, questions = harness.detector_file(), self.questions([("q", "v0")])
        new = self.answer(questions, "--detector", model, "--box-threshold", "0.5", "--max-detections", "2", "--dump",
                          self.path("new"))
        old = self.answer(questions, "--use_grounding_dino", "--grounding_dino_model", model, "--detection_threshold", "0.5",
                          "--max_detections_per_frame", "2", "--dump", self.path("old"))
        self.assertEqual((new.status, old.status), (0, 0), str(new) + str(old))
        for name in ("detections.json", "tiles.npy"):
            with open(self.path("new", "v0", name), "rb") as one, open(self.path("old", "v0", name), "rb") as other:
                self.assertEqual(one.read(), other.read())
        self.assertIn("Frame1: 2 (", old.rows()[0]["prompt"])

    def test_labels_of_ones_own(self):
        labels = self.write("labels.txt", "truck\n\nStop Sign\nquxx\n")
        run = self.detect([("q", "v0")], *ALL, "--text-threshold", "1", "--labels", labels, "--dump", self.path("dump"))
        self.assertEqual(run.status, 0, run)
        said = run.complaints()
        self.assertEqual(len(said), 1, run)
        self.assertIn("quxx", said[0])
        found = [d for frame in self.dumped("v0", "detections.json")["frames"] for d in frame["detections"]]
        self.assertTrue(all(d["raw_label"] == "" and d["label"] in ("truck", "Stop Sign", "quxx") for d in found), found)
        # no word is above the text threshold: then the prompt has the label itself
        texts = [d["label"] for d in found[:5]]
        self.assertIn(f"Frame1: 5 ({', '.join(texts)})", run.rows()[0]["prompt"])

    def test_nothing_found_leaves_the_prompt_as_it_is_without(self):
        run = self.detect([("q", "v0")], "--box-threshold", "1", "--dump", self.path("dump"))
        plain = self.answer(self.questions([("q", "v0")]), frames=2)
        self.assertEqual(run.status, 0, run)
        self.assertEqual(run.rows()[0]["prompt"], plain.rows()[0]["prompt"])
        self.assert_close(run.logits(), plain.logits())
        self.assertEqual([f["detections"] for f in self.dumped("v0", "detections.json")["frames"]], [[], []])

    def test_boxes_without_area_are_counted(self):
        os.mkdir(self.path("small"))
        harness.write_png(self.path("small", "0.png"), 5, 4, lambda x, y: (x * 50, y * 60, 99))
        run = self.detect([("q", "small")], *ALL, "--max-detections", "50", "--text-threshold", "1", "--dump",
                          self.path("dump"), frames=1)
        self.assertEqual(run.status, 0, run)
        found = self.dumped("small", "detections.json")["frames"][0]["detections"]
        self.assertTrue(0 < len(found) < 20, len(found))
        self.assertIn(f"\n{20 - len(found)} boxes without area were left out\n", run.out)
        for d in found:
            x0, y0, x1, y1 = map(int, d["box"])
            self.assertTrue(x1 > x0 and y1 > y0, d)

    def test_engine_that_dies_sees_the_same_again(self):
        pairs = [("q1", "v0"), ("q2", "v0"), ("q3", "v1")]
        options = (*ALL, "--max-detections", "1", "--text-threshold", "1", "--exact")
        whole = self.detect(pairs, *options)
        run = self.detect(pairs, *options, env={"LOWBEAM_TEST_FAULT": f"abort:q3:{self.path('mark')}:1"})
        self.assertEqual((whole.status, run.status), (0, 0), run)
        self.assertTrue(os.path.exists(self.path("mark")))
        self.assertEqual(run.answers(), whole.answers())
        self.assert_close(run.logits(), whole.logits())


class Library(harness.Test):
    """The same through lowbeam.h."""

    def ask(self, detector, most="3"):
        question = json.load(open(self.questions([("q", "v0")]), encoding="utf-8"))["data"][0]
        program = os.path.join(harness.BUILD, "tests", "dump_answer")
        return self.run_program([program, *harness.model_files(), detector, most, self.path("v0"), question["question"],
                                 *question["choices"]])

    def test_same_answer_as_the_program(self):
        run = self.answer(self.questions([("q", "v0")]), "--detector", harness.detector_file(), *ALL, "--text-threshold", "1",
                          "--max-detections", "3", "--exact")
        row = run.journal()["q"]
        logits = json.loads(row["letter_logits"])
        powers = [math.exp(x - max(logits)) for x in logits]
        library = self.ask(harness.detector_file())
        self.assertEqual(library.status, 0, library)
        lines = library.out.splitlines()
        self.assertEqual(len(lines), 2, library)
        self.assertEqual(lines[0], lines[1])  # asked again: what was seen is kept
        letter, n_tokens, *shares = lines[0].split()
        self.assertEqual((letter, int(n_tokens)), (row["answer"], row["n_prompt_tokens"]))
        for share, power in zip(map(float, shares), powers):
            self.assertAlmostEqual(share, power / sum(powers), places=4)
        plain = self.ask("-").out.splitlines()[0].split()
        self.assertLess(int(plain[1]), int(n_tokens) - 3 * TOKENS_PER_TILE + 1)

    def test_faults(self):
        for detector, most, word in ((self.path("none.gguf"), "3", "none.gguf"), (harness.detector_file(), "0", "max_detections"),
                                     (harness.model_files()[0], "3", "lowbeam convert")):
            run = self.ask(detector, most)
            self.assertEqual((run.status, run.out), (1, ""), run)
            self.assertEqual(len(run.err.splitlines()), 1, run)
            self.assertIn(word, run.err)


class Faults(harness.Test):
    def refused(self, *options, words, status=1):
        self.assert_refused(self.answer(self.questions([("q", "v0")]), *options), *words, status=status)

    def test_what_is_no_detector(self):
        language, vision = harness.model_files()
        self.refused("--detector", self.path("none.gguf"), words=["none.gguf", "No such file"])
        self.refused("--detector", language, words=[language, "qwen2", "lowbeam convert"])
        self.refused("--detector", vision, words=[vision, "lowbeam convert"])
        self.refused("--detector", self.write("text.gguf", "GG"), words=["text.gguf"])
        self.refused("--detector", self.path("v0"), words=["v0", "lowbeam convert"])
        self.refused("--detector", "IDEA-Research/no-such", words=["IDEA-Research/no-such", "huggingface-cli download",
                                                                   "lowbeam convert"])

    def test_wrong_options(self):
        model = harness.detector_file()
        for option, value, word in (("--box-threshold", "1.5", "from 0 to 1"), ("--detection_threshold", "x", "from 0 to 1"),
                                    ("--max-detections", "0", "from 1"), ("--text-threshold", "", "from 0 to 1")):
            self.refused("--detector", model, option, value, words=[word], status=2)
        labels = self.write("labels.txt", "car\n")
        self.refused("--labels", labels, words=["--labels", "--detector"], status=2)
        self.refused("--detector", model, "--labels", self.path("none.txt"), words=["none.txt"])
        self.refused("--detector", model, "--labels", self.write("stop.txt", "a.b\n"), words=["stop.txt"])

    def test_folder_with_a_detector(self):
        os.mkdir(self.path("all"))
        for source in (*harness.model_files(), harness.detector_file()):
            os.symlink(source, self.path("all", os.path.basename(source)))
        command, csv_path = self.command(self.questions([("q", "v0")]), "--detector", self.path("all"))
        at = command.index("--model")  # the folder's language model and vision part, too
        command[at:at + 4] = ["--model", self.path("all")]
        run = self.run_program(command, csv_path)
        self.assertEqual(run.status, 0, run)
        self.assertIn("[VRAM After Grounding DINO model loaded]", run.out)
        os.symlink(harness.detector_file(), self.path("all", "second.gguf"))
        self.refused("--detector", self.path("all"), words=["several", "second.gguf"])

    def test_the_detector_that_ships(self):
        os.makedirs(self.path("bin")), os.makedirs(self.path("share", "lowbeam", "models"))
        program = shutil.copy(harness.LOWBEAM, self.path("bin"))
        command, csv_path = self.command(self.questions([("q", "v0")]), "--use_grounding_dino")
        command[0] = program
        self.assert_refused(self.run_program(command, csv_path), "grounding-dino-lowbeam-small.gguf", "lowbeam convert",
                            "--detector")
        os.symlink(harness.detector_file(), self.path("share", "lowbeam", "models", "grounding-dino-lowbeam-small.gguf"))
        run = self.run_program(command, csv_path)
        self.assertEqual(run.status, 0, run)
        self.assertIn("[VRAM After Grounding DINO model loaded]", run.out)

    def test_detector_that_gives_no_numbers(self):
        with open(harness.detector_file(), "rb") as file:
            data = bytearray(file.read())
        data[-40000:] = b"\xff" * 40000  # the last weights: not a number
        model = self.write("damaged.gguf", bytes(data))
        run = self.answer(self.questions([("q1", "v0"), ("q2", "v0"), ("q3", "v1")]), "--detector", model)
        self.assertEqual(run.status, 3, run)
        for question in ("q1", "q2", "q3"):
            self.assert_fallback(run, question, "detector", "finite")

    def test_frame_too_thin_for_the_detector(self):
        os.mkdir(self.path("thin"))
        harness.write_png(self.path("thin", "0.png"), 1000, 1, lambda x, y: (x % 256, 0, 0))
        run = self.answer(self.questions([("q1", "thin"), ("q2", "v0")]), "--detector", harness.detector_file())
        self.assertEqual(run.status, 3, run)
        self.assert_fallback(run, "q1", "thin")
        self.assertEqual(run.journal()["q2"]["fallback"], 0, run)


if __name__ == "__main__":
    harness.main()
