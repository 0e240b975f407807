#!/usr/bin/env python3
"""--cache-dir: a second run takes what the models saw from there, and its CSV is that of a fresh run to the byte; entries
that are damaged are made anew; the folder keeps to its limit. --cache and --ram."""
import glob
import os
import shutil

import harness

SIGHTS = ("cache", "sights")


class Cache(harness.Test):
    PAIRS = [(f"q{i}", f"v{i % 3}") for i in range(6)]

    def bytes_of(self, path):
        with open(path, "rb") as file:
            return file.read()

    def entries(self):
        return sorted(glob.glob(self.path(*SIGHTS, "*")))

    def cached(self, run):
        line, = (line for line in run.out.splitlines() if line.startswith("cache: "))
        words = line.split()
        self.assertEqual(words[2:6:1], ["of", words[3], "videos", "from"], run)
        return int(words[1]), int(words[3])

    def ask(self, *options, prompt=None, frames=2, **more):
        path = self.questions(self.PAIRS)
        if prompt:
            options += ("--prompt", self.write("prompt.txt", prompt))
        return self.answer(path, "--cache-dir", self.path("cache"), *options, frames=frames, **more)

    def assert_same(self, run, fresh):
        self.assertEqual(run.status, 0, run)
        self.assertEqual(self.bytes_of(run.csv_path), self.bytes_of(fresh.csv_path))
        self.assertEqual(run.logits(), fresh.logits())

    def assert_from_cache(self, run):
        for row in run.journal().values():
            self.assertEqual((row["decode_s"], row["detect_s"]), (0, 0), run)
            self.assertLess(row["encode_s"], 1e-9, run)

    PROMPT = "{frames}\n\n{detections}\n\nNói ngắn: {question}\n{choices}\n"

    def test_second_run_with_another_prompt(self):
        first = self.ask()
        self.assertEqual((first.status, self.cached(first)), (0, (0, 3)), first)
        self.assertEqual(len(self.entries()), 3, os.listdir(self.path(*SIGHTS)))
        prompt = self.write("prompt.txt", self.PROMPT.replace("{detections}\n\n", ""))
        fresh = self.answer(self.questions(self.PAIRS), "--prompt", prompt, frames=2)
        again = self.ask("--prompt", prompt)
        self.assertEqual(self.cached(again), (3, 3), again)
        self.assert_same(again, fresh)
        self.assert_from_cache(again)
        self.assertNotEqual(self.bytes_of(again.csv_path), self.bytes_of(first.csv_path))
        self.assert_same(self.ask(), first)

    def test_with_a_detector(self):
        detector = ("--detector", harness.detector_file(), "--box-threshold", "0", "--max-detections", "2")
        first = self.ask(*detector)
        self.assertEqual((first.status, self.cached(first)), (0, (0, 3)), first)
        again = self.ask(*detector)
        self.assertEqual(self.cached(again), (3, 3), again)
        self.assert_same(again, first)
        self.assert_from_cache(again)
        fresh = self.answer(self.questions(self.PAIRS), *detector, "--prompt", self.write("p.txt", self.PROMPT), frames=2)
        other = self.ask(*detector, prompt=self.PROMPT)
        self.assertEqual(self.cached(other), (3, 3), other)
        self.assert_same(other, fresh)

    def test_nothing_is_decoded(self):
        video = sorted(glob.glob(os.path.join(harness.TOP, "samples", "videos", "*.mp4")))[0]
        shutil.copy(video, self.path("a.mp4"))
        self.PAIRS = [("q1", "a.mp4"), ("q2", "a.mp4")]
        first = self.ask()
        os.rename(self.path("a.mp4"), self.path("b.mp4"))  # its name does not matter, its content does
        self.PAIRS = [("q1", "b.mp4"), ("q2", "b.mp4")]
        again = self.ask(env={"LOWBEAM_DECODE": "/nonexistent"})
        self.assertEqual(self.cached(again), (1, 1), again)
        self.assert_same(again, first)

    def test_other_settings_are_other_entries(self):
        self.ask()
        for n, options in enumerate((("--max-tiles", "2"), ("--to", "2"), ("--exact",)), 2):
            run = self.ask(*options)
            self.assertEqual((run.status, self.cached(run)), (0, (0, 3)), run)
            self.assertEqual(len(self.entries()), 3 * n)
        run = self.ask(frames=1)
        self.assertEqual(self.cached(run), (0, 3), run)
        changed = sorted(glob.glob(self.path("v0", "*")))[0]
        harness.write_png(changed, 48, 32, lambda x, y: (x, y, 99))
        run = self.ask()
        self.assertEqual(self.cached(run), (2, 3), run)  # the other two are as they were
        fresh = self.answer(self.questions(self.PAIRS), frames=2)
        self.assert_same(run, fresh)

    def test_damaged_entries_are_made_anew(self):
        first = self.ask()
        one, two, three = self.entries()
        data = bytearray(self.bytes_of(one))
        data[len(data) // 2] ^= 1
        for path, content in ((one, data), (two, self.bytes_of(two)[:-1]), (three, b"")):
            with open(path, "wb") as file:
                file.write(content)
        again = self.ask()
        self.assertEqual(self.cached(again), (0, 3), again)
        self.assertEqual(again.err.count("is damaged"), 3, again)
        self.assert_same(again, first)
        last = self.ask()
        self.assertEqual(self.cached(last), (3, 3), last)
        self.assert_same(last, first)

    def test_the_folder_keeps_to_its_limit(self):
        self.ask()
        size = os.path.getsize(self.entries()[0])
        shutil.rmtree(self.path("cache"))
        limit = str(2 * size + size // 2)
        first = self.ask("--cache-dir-limit", limit)
        self.assertEqual(len(self.entries()), 2)
        again = self.ask("--cache-dir-limit", limit)
        self.assert_same(again, first)
        self.assertLessEqual(sum(map(os.path.getsize, self.entries())), int(limit))
        shutil.rmtree(self.path("cache"))
        none = self.ask("--cache-dir-limit", str(size - 1))  # none has room: none is kept
        self.assertEqual((none.status, self.entries()), (0, []), none)

    def test_dump_reads_the_videos(self):
        first = self.ask()
        run = self.ask("--dump", self.path("dump"))
        self.assertEqual(self.cached(run), (0, 3), run)
        self.assertTrue(os.path.exists(self.path("dump", "v0", "frames.npy")))
        self.assert_same(run, first)

    def test_an_engine_that_dies_sees_the_same_again(self):
        first = self.ask()
        run = self.ask(env={"LOWBEAM_TEST_FAULT": f"abort:q3:{self.path('mark')}:1"})
        self.assertTrue(os.path.exists(self.path("mark")))
        self.assertEqual((run.status, self.cached(run)), (0, (3, 3)), run)
        self.assertEqual(self.bytes_of(run.csv_path), self.bytes_of(first.csv_path))

    def test_folder_that_cannot_be_used(self):
        self.write("file", "")
        path = self.questions(self.PAIRS)
        run = self.answer(path, "--cache-dir", self.path("file"))
        self.assertEqual(run.status, 1, run)
        self.assertIn("--cache-dir", run.err)
        self.assert_nothing_left(run)

    def test_weights_that_are_hashed_late(self):
        """The vision file is too large to be hashed at once, and nobody remembers its hash: the first run does not wait,
        and keeps what it saw all the same."""
        big = self.path("mmproj.gguf")
        shutil.copy(harness.model_files()[1], big)
        with open(big, "ab") as file:
            file.truncate(os.path.getsize(big) + (80 << 20))  # zeros at the end, which no tensor needs
        env = {"LOWBEAM_CACHE": self.path("hashes")}
        first = self.ask(mmproj=big, env=env)
        self.assertEqual((first.status, self.cached(first)), (0, (0, 3)), first)
        self.assertEqual(len(self.entries()), 3, self.entries())
        self.assertEqual([name for name in self.entries() if "pending" in name], [])
        again = self.ask(mmproj=big, env=env)
        self.assertEqual(self.cached(again), (3, 3), again)
        self.assert_same(again, first)


class HostMemory(harness.Test):
    def test_a_video_larger_than_the_cache_fails_alone(self):
        path = self.questions([("q1", "v0"), ("q2", "v1")])
        run = self.answer(path, "--cache", "10KiB", frames=2)
        self.assertEqual(run.status, 3, run)
        for question in ("q1", "q2"):
            self.assert_fallback(run, question, "--cache", "v")
        enough = self.answer(path, "--cache", "2MiB", frames=1)
        self.assertEqual(enough.status, 0, enough)
        self.assertEqual(enough.answers(), self.answer(path, frames=1).answers())

    def test_ram(self):
        path = self.questions([("q1", "v0"), ("q2", "v1")])
        run = self.answer(path, "--ram", "100KiB")
        self.assert_refused(run, "--ram", "frames", status=4)
        run = self.answer(path, "--ram", "64MiB")
        self.assertEqual(run.status, 0, run)
        for option in ("--ram", "--cache"):
            run = self.answer(path, option, "0")
            self.assertEqual(run.status, 2, run)
            self.assertIn(option, run.err)


class Library(harness.Test):
    def ask(self, cache_bytes, *clips):
        run = self.run_program([os.path.join(harness.BUILD, "tests", "dump_cache"), *harness.model_files(), str(cache_bytes),
                                *map(self.path, clips)])
        self.assertEqual(run.status, 0, run)
        *lines, last = run.out.splitlines()
        words = last.split()
        return lines, int(words[1]), int(words[3]), int(words[5])

    def test_alternating_questions_about_several_videos(self):
        order = ("v0", "v1", "v2") * 3
        once, decoded, encoded, most = self.ask(1 << 30, *order[:3])
        self.assertEqual((decoded, encoded, len(set(once))), (3, 3, 3))
        lines, *counts, _ = self.ask(1 << 30, *order)
        self.assertEqual((lines, counts), (once * 3, [3, 3]))
        # room for one: each makes the one before go
        lines, decoded, encoded, held = self.ask(most // 3, *order)
        self.assertEqual((lines, decoded, encoded), (once * 3, 9, 9))
        self.assertLessEqual(held, most // 3)
        # and the last one still is there
        lines, *counts, _ = self.ask(most // 3, "v0", "v0", "v1", "v1")
        self.assertEqual((lines, counts), ([once[0]] * 2 + [once[1]] * 2, [2, 2]))

    def test_a_video_larger_than_the_cache(self):
        (line,), decoded, encoded, most = self.ask(1000, "v0")
        self.assertIn("options.cache_bytes", line)
        self.assertEqual((decoded, encoded, most), (0, 0, 0))

    def test_a_video_that_was_changed(self):
        first, *_ = self.ask(1 << 30, "v0")
        shutil.copytree(self.path("v1"), self.path("v0"), dirs_exist_ok=True)
        self.assertNotEqual(self.ask(1 << 30, "v0")[0], first)


if __name__ == "__main__":
    harness.main()
