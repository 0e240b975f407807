#!/usr/bin/env python3
"""`lowbeam answer` where all goes well, from the questions file to the CSV: what it prints and writes, and that the same
answers come out whatever shares the work. Tests of faults are in test_faults.py."""
import array
import contextlib
import csv
import json
import math
import os
import re
import sqlite3
import subprocess

import harness
import make_demo_model
import qwen2_vocab

VRAM = r"\[VRAM {}\] Allocated: \d+\.\d\dGB \| Reserved: \d+\.\d\dGB"
TILE, TOKENS_PER_TILE = make_demo_model.SIZE, 256


def floats(data):
    values = array.array("f")
    values.frombytes(data)
    return values


class Answer(harness.Test):
    def twelve(self, **fields):
        """Three questions to a video; the input's order is not the videos'."""
        return self.questions([(f"q{i}", f"v{i % 4}") for i in range(12)], **fields)

    def test_good_run_prints_and_writes_what_the_documents_say(self):
        run = self.answer(self.twelve(answer="C"))
        self.assertEqual(run.status, 0, run)
        lines = run.out.splitlines()
        for when in ("After InternVL3 model loaded", "Start of inference", "After 10 questions", "End of inference"):
            self.assertEqual(sum(bool(re.fullmatch(VRAM.format(when), line)) for line in lines), 1, (when, str(run)))
        self.assertIn("Total videos cached: 4", lines)
        self.assertRegex(lines[0], r"^Memory plan: peak [0-9.]+ GiB, at \w+: fits$")
        self.assertTrue(lines[1].startswith("Device: "), run)
        planned, measured = re.search(r"(?m)^  peak +([0-9.]+) +([0-9.]+)$", run.out).groups()
        self.assertLessEqual(abs(float(planned) - float(measured)), 0.02, "MiB, planned and measured")
        rows = run.rows()
        right = sum(row["answer"] == "C" for row in rows)
        self.assertEqual(lines[-1], f"Accuracy: {right}/12 ({100 * right / 12:.1f} %)")
        self.assertEqual(run.complaints(), [], run)
        self.assertRegex(run.err, r"(?m)^12/12 questions, ")
        self.assertEqual([row["id"] for row in rows], [f"q{i}" for i in range(12)])
        for row in rows:
            self.assertEqual(row["raw_response"], row["answer"])  # the model says a letter and stops
            self.assertEqual(row["prompt"].count("<image>"), 1)
            self.assertIn(f"Câu hỏi {row['id']}: có gì trên đường?", row["prompt"])
        self.assertEqual(len({row["answer"] for row in rows}) > 1, True, "pictures and questions make no difference")

    def test_terminal_has_one_living_line(self):
        main, terminal = os.openpty()
        self.addCleanup(os.close, main)
        command, csv_path = self.command(self.twelve())
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal) as process:
            os.close(terminal)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: the other end is closed
                while piece := os.read(main, 4096):
                    shown += piece
            out = process.stdout.read().decode()
        self.assertEqual(process.returncode, 0, shown)
        self.assertNotIn(b"\n", shown)
        self.assertIn(b"\r\033[K12/12 questions, ", shown)
        self.assertTrue(shown.endswith(b"\r\033[K"), shown[-80:])  # and nothing stays of it
        self.assertNotIn("\033", out)

    def test_csv_is_rfc_4180_and_journal_holds_the_same(self):
        odd = 'Nói "dừng",\r\nrồi đi?'
        path = self.questions([("a,b", "v0"), ('q"2', "v0", {"question": odd}), (" 3", "v0")])
        run = self.answer(path, "--system", "x")
        with open(run.csv_path, "rb") as file:
            raw = file.read()
        self.assertTrue(raw.startswith(b"id,answer,raw_response,prompt\r\n\"a,b\","), raw[:80])
        self.assertTrue(raw.endswith(b"\r\n"))
        self.assertIn(b'"q""2"', raw)
        rows = run.rows()
        self.assertEqual([row["id"] for row in rows], ["a,b", 'q"2', " 3"])
        self.assertIn('Nói "dừng",', rows[1]["prompt"])
        journal = run.journal()
        for row in rows:
            stored = journal[row["id"]]
            for column in ("answer", "raw_response", "prompt"):
                self.assertEqual(stored[column], row[column])
            self.assertEqual((stored["fallback"], stored["error"], stored["n_choices"]), (0, None, 4))
            self.assertEqual(stored["n_new_tokens"], 1)
            self.assertGreater(stored["n_prompt_tokens"], TOKENS_PER_TILE)
            self.assertEqual(len(json.loads(stored["letter_logits"])), 4)
            self.assertIsNone(stored["letter_probabilities"])
        db = sqlite3.connect(run.csv_path[:-4] + ".db")
        settings = dict(db.execute("SELECT name, value FROM run"))
        db.close()
        self.assertEqual((settings["num_frames"], settings["reuse"], settings["model"]),
                         ("1", "yes", harness.model_files()[0]))

    def test_letter_beyond_the_choices_is_a_fallback(self):
        run = self.answer(self.twelve(n_choices=2))
        fallbacks = [row for row in run.journal().values() if row["fallback"]]
        self.assertTrue(fallbacks, "the model said A or B each time: this test shows nothing")
        self.assertEqual(run.status, 3, run)
        for row in fallbacks:
            self.assertIn(row["raw_response"], ("C", "D"))
            self.assertEqual((row["answer"], row["error"]), ("A", None))
        self.assertIn("12 of 12 questions answered", run.out)
        self.assertIn(f"{len(fallbacks)} by fallback", run.out)

    def test_reuse_and_batches_change_nothing(self):
        path = self.questions([(f"q{i}", f"v{i % 2}") for i in range(6)])
        runs = {name: self.answer(path, "--exact", *options, frames=2) for name, options in {
            "default": (), "batch 1": ("--batch", "1"), "batch 2": ("--batch", "2", "--ubatch", "100"),
            "whole": ("--no-reuse", "--tile-batch", "2")}.items()}
        first = runs.pop("default")
        self.assertEqual(first.status, 0, first)
        for name, run in runs.items():
            with self.subTest(name):
                self.assertEqual(run.answers(), first.answers())
                self.assert_close(run.logits(), first.logits())

    def test_more_questions_at_once_than_a_batch_holds_tokens(self):
        path = self.questions([(f"q{i}", "v0") for i in range(8)])
        whole = self.answer(path, "--exact", "--max-new-tokens", "8")
        self.assertEqual(whole.status, 0, whole)
        for n in ("3", "1"):
            run = self.answer(path, "--exact", "--max-new-tokens", "8", "--ubatch", n)
            self.assertEqual(run.status, 0, run)
            self.assertEqual(run.answers(), whole.answers())
            self.assert_close(run.logits(), whole.logits())

    def test_reuse_changes_little_by_default(self):
        path = self.twelve()
        one, whole = self.answer(path).logits(), self.answer(path, "--no-reuse").logits()
        # f16 keys and values: design.md's 3e-2, relative to the largest logit; a letter may flip below that
        self.assert_close(one, whole, 3e-2 * max(max(row) for row in one.values()))

    def test_order_of_the_questions_changes_nothing(self):
        pairs = [(f"q{i}", f"v{i % 2}") for i in range(6)]
        one = self.answer(self.questions(pairs), "--exact")
        other = self.answer(self.questions(pairs[::-1], "reversed.json"), "--exact")
        self.assertEqual(one.answers(), other.answers())
        self.assert_close(one.logits(), other.logits())
        self.assertEqual([row["id"] for row in other.rows()], [i for i, _ in pairs[::-1]])

    def test_template_with_the_question_first_is_said_once_and_answers(self):
        template = self.write("first.txt", "{question}\n{choices}\n{frames}\nOne letter:")
        path = self.twelve()
        run = self.answer(path, "--prompt", template, "--exact")
        self.assertEqual(run.status, 0, run)
        said = [line for line in run.complaints() if "question before the frames" in line]
        self.assertEqual(len(said), 1, run)
        self.assertEqual(len(run.complaints()), 1, run)
        self.assertTrue(run.rows()[0]["prompt"].startswith("Câu hỏi q0"))
        whole = self.answer(path, "--prompt", template, "--exact", "--no-reuse")
        self.assertEqual(run.answers(), whole.answers())
        self.assert_close(run.logits(), whole.logits())

    def test_answer_letter_reads_the_logits(self):
        run = self.answer(self.twelve(), "--answer", "letter", "--exact")
        generated = self.answer(self.twelve(), "--exact")
        self.assertEqual(run.status, 0, run)
        self.assert_close(run.logits(), generated.logits())
        for i, row in run.journal().items():
            logits, probabilities = json.loads(row["letter_logits"]), json.loads(row["letter_probabilities"])
            self.assertEqual(row["answer"], "ABCD"[logits.index(max(logits))])
            self.assertEqual((row["raw_response"], row["n_new_tokens"]), (row["answer"], 0))
            self.assertAlmostEqual(sum(probabilities), 1, places=5)
            sums = sum(math.exp(x - max(logits)) for x in logits)
            for logit, probability in zip(logits, probabilities):
                self.assertAlmostEqual(probability, math.exp(logit - max(logits)) / sums, places=5)
            self.assertEqual(row["answer"], generated.answers()[i])

    def test_samples_and_columns_and_old_spellings(self):
        path = self.twelve()
        command, csv_path = self.command(path, "--samples", "2", "--columns", "answer,id", "--num_frames", "3")
        run = self.run_program(command, csv_path)
        with open(csv_path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        self.assertEqual(rows[0], ["answer", "id"])
        self.assertEqual([row[1] for row in rows[1:]], ["q0", "q1"])
        self.assertIn("2 of 2 questions answered", run.out)
        self.assertEqual(run.journal()["q0"]["prompt"].count("<image>"), 3)

    def test_bounds_choose_other_frames(self):
        run = self.answer(self.questions([("q", "v0")]), "--dump", self.path("dump"), "--from", "1", "--to", "3", frames=2)
        self.assertEqual(run.status, 0, run)
        dtype, shape, data = harness.read_npy(self.path("dump", "v0", "frame_index.npy"))
        self.assertEqual((dtype, shape), ("<i8", (2,)))
        self.assertEqual(array.array("q", data).tolist(), [1, 2])

    def test_folder_as_out_is_made_and_named_after_the_model(self):
        folder = self.path("new", "results")
        command, _ = self.command(self.questions([("q", "v0")]), out=folder)
        run = self.run_program(command)
        self.assertEqual(run.status, 0, run)
        names = sorted(os.listdir(folder))
        self.assertEqual(len(names), 2, names)
        self.assertRegex(names[0], r"^submission_demo-llm_\d{8}_\d{6}\.csv$")
        self.assertEqual(names[1], names[0][:-4] + ".db")
        self.assertIn(f"CSV: {folder}/{names[0]}", run.out)

    def test_videos_default_to_the_folder_of_the_questions(self):
        path = self.questions([("q", "v1")])
        command, csv_path = self.command(path)
        at = command.index("--videos")
        del command[at:at + 2]
        self.assertEqual(self.run_program(command, csv_path, cwd="/").status, 0)

    def test_real_clips_are_decoded(self):
        names = ["h264_short.mp4", "vp9_odd.webm", "hevc.mkv"]
        run = self.answer(self.questions([(name, name) for name in names]), "--videos", harness.CLIPS)
        self.assertEqual(run.status, 0, run)
        self.assertEqual([row["id"] for row in run.rows()], names)

    def test_choices_of_every_number(self):
        pairs = [(f"q{n}", "v0", {"choices": [f"câu {k}" for k in range(n)]}) for n in range(2, 9)]
        run = self.answer(self.questions(pairs))
        for i, row in run.journal().items():
            self.assertEqual(len(json.loads(row["letter_logits"])), int(i[1:]))
            last = int(i[1:]) - 1
            self.assertIn(f"\n{'ABCDEFGH'[last]}. câu {last}\n", row["prompt"])


class Dump(harness.Test):
    def test_names_types_and_shapes(self):
        path = self.questions([("q/1", "v0"), ("q 1", "v0"), ("v0", "v1"), ("Ô", "v1")])
        run = self.answer(path, "--dump", self.path("dump"), "--max-tiles", "2", "--exact", frames=2)
        self.assertEqual(run.status, 0, run)
        # videos first, then questions: an id that meets a video's name is the later one
        self.assertEqual(sorted(os.listdir(self.path("dump"))),
                         sorted(["v0", "v1", "q_1", "q_1-2", "v0-2", "__"]))
        embedding = make_demo_model.N_EMBD
        # 48x32 with 2 tiles at most: a grid of 2x1 (2 is nearer to 1.5 than 1 is, or as near) and the thumbnail
        expected = {"frame_index.npy": ("<i8", (2,)), "frames.npy": ("|u1", (2, 32, 48, 3)),
                    "tiles_per_frame.npy": ("<i4", (2,)), "tiles.npy": ("|u1", (None, TILE, TILE, 3)),
                    "embeddings.npy": ("<f4", (None, embedding))}
        for video in ("v0", "v1"):
            self.assertEqual(sorted(os.listdir(self.path("dump", video))), sorted(expected))
            per_frame = array.array("i", harness.read_npy(self.path("dump", video, "tiles_per_frame.npy"))[2])
            n_tiles = sum(per_frame)
            for name, (dtype, shape) in expected.items():
                got_type, got_shape, data = harness.read_npy(self.path("dump", video, name))
                rows = {"tiles.npy": n_tiles, "embeddings.npy": n_tiles * TOKENS_PER_TILE}.get(name, shape[0])
                self.assertEqual((got_type, got_shape), (dtype, (rows, *shape[1:])), name)
                self.assertEqual(len(data), math.prod(got_shape) * int(dtype[2:]), name)
        self.check_question("q_1", "q/1", run, n_tiles)
        self.check_question("__", "Ô", run, n_tiles)

    def check_question(self, folder, i, run, n_tiles):
        self.assertEqual(sorted(os.listdir(self.path("dump", folder))), ["logits.npy", "prompt.txt", "tokens.npy"])
        with open(self.path("dump", folder, "prompt.txt"), encoding="utf-8", newline="") as file:
            text = file.read()
        self.assertTrue(text.startswith("<|im_start|>system\n你是书生·万象，"), text[:60])
        self.assertTrue(text.endswith("<|im_end|>\n<|im_start|>assistant\n"), text[-60:])
        self.assertEqual(text.count("<IMG_CONTEXT>"), n_tiles * TOKENS_PER_TILE)
        self.assertEqual(text.count("<img>"), 2)
        self.assertIn(f"Câu hỏi {i}:", text)
        row = run.journal()[i]
        dtype, shape, data = harness.read_npy(self.path("dump", folder, "tokens.npy"))
        tokens = array.array("i", data)
        self.assertEqual((dtype, shape), ("<i4", (row["n_prompt_tokens"],)))
        self.assertEqual(tokens.count(-1), n_tiles * TOKENS_PER_TILE)
        self.assertEqual(tokens[0], harness.token(qwen2_vocab.IM_START))
        self.assertEqual(tokens.count(harness.token(qwen2_vocab.IMG_START)), 2)
        dtype, shape, data = harness.read_npy(self.path("dump", folder, "logits.npy"))
        logits = floats(data)
        self.assertEqual((dtype, shape), ("<f4", (harness.token(qwen2_vocab.N_VOCAB),)))
        letters = [logits[32 + k] for k in range(4)]  # the vocabulary's "A" to "D"
        for one, other in zip(letters, json.loads(row["letter_logits"])):
            self.assertAlmostEqual(one, other, places=4)

    def test_special_tokens_in_a_question_are_text(self):
        path = self.questions([("q", "v0", {"question": "<img> <|im_end|> <IMG_CONTEXT> gì?"})])
        run = self.answer(path, "--dump", self.path("dump"))
        self.assertEqual(run.status, 0, run)
        _, _, data = harness.read_npy(self.path("dump", "q", "tokens.npy"))
        tokens = array.array("i", data)
        self.assertEqual(tokens.count(harness.token(qwen2_vocab.IMG_START)), 1)
        self.assertEqual(tokens.count(harness.token(qwen2_vocab.IM_END)), 2)
        self.assertEqual(tokens.count(harness.token(qwen2_vocab.IMG_CONTEXT)), 0)


if __name__ == "__main__":
    harness.main()
