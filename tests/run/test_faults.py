#!/usr/bin/env python3
"""What can go wrong with questions and videos: a fault is one question's, or it is said in one line before anything runs.
Processes that die or are told to stop are in test_processes.py, model files in test_model_files.py."""
import json
import os

import harness


class QuestionsFile(harness.Test):
    def faulty(self):
        good = {"question": "Gì?", "choices": ["A. a", "B. b"], "video_path": "v0"}
        return self.write("faulty.json", json.dumps({"data": [
            {"id": "good", **good}, {"id": "one", **good, "choices": ["A. a"]}, {"id": "good", **good},
            {"id": "none", **good, "question": 7}, {"id": "last", **good}]}))

    def test_all_faults_are_listed_and_nothing_is_done(self):
        run = self.answer(self.faulty())
        self.assertEqual(run.status, 1, run)
        lines = run.err.splitlines()
        self.assertEqual(len(lines), 4, run)
        for fault in ('data[1].choices (id "one")', 'data[2].id (id "good")', 'data[3].question (id "none")'):
            self.assertEqual(sum(fault in line for line in lines), 1, run)
        self.assertIn("3 faults", lines[-1])
        self.assertIn("--keep-going", lines[-1])
        for line in lines:
            self.assertTrue(line.startswith("lowbeam: ") and "faulty.json: " in line, run)
        self.assert_nothing_left(run)

    def test_keep_going_answers_the_sound_ones(self):
        run = self.answer(self.faulty(), "--keep-going")
        self.assertEqual(run.status, 3, run)
        rows = run.rows()
        self.assertEqual([row["id"] for row in rows], ["good", "one", "good", "none", "last"])
        for at, words in ((1, "choices"), (2, "the same id"), (3, "question")):
            self.assertEqual(rows[at]["answer"], "A")
            self.assertIn(words, rows[at]["raw_response"])
        self.assertEqual(run.journal()["last"]["error"], None)

    def test_only_faulty_ones(self):
        path = self.write("q.json", '{"data": [{"id": "x", "question": "", "choices": [], "video_path": "v0"}]}')
        run = self.answer(path, "--keep-going")
        self.assertEqual(run.status, 3, run)
        self.assertEqual(run.answers(), {"x": "A"})

    def test_file_that_is_none(self):
        for content, words in (("", ("q.json",)), ("{", ("q.json", "line 1")), ('{"data": 3}', ("q.json", "data")),
                               (b'{"data": ["\xff"]}', ("q.json",))):
            with self.subTest(content):
                self.assert_refused(self.answer(self.write("q.json", content)), *words)
        run = self.answer(self.write("q.json", '{"data": []}'))
        self.assertEqual(run.status, 1, run)
        self.assertIn("no question", run.err)
        self.assert_nothing_left(run)
        self.assert_refused(self.answer(self.path("none.json")), "none.json", "No such file")
        self.assert_refused(self.answer(self.folder), "folder")


class Videos(harness.Test):
    """Each broken video's question gets A and the cause; the one after it is answered."""

    def check(self, videos, *options, **more):
        """videos: {video_path: words of the cause, or None: it is answered}"""
        videos = {**videos, "v1": None}
        run = self.answer(self.questions([(video, video) for video in videos]), *options, **more)
        failed = {video for video, words in videos.items() if words}
        self.assertEqual(run.status, 3 if failed else 0, run)
        self.assertEqual([row["id"] for row in run.rows()], list(videos))
        for video, words in videos.items():
            with self.subTest(video):
                if words:
                    self.assert_fallback(run, video, *words)
                    self.assertIn(f"lowbeam: question {video}: ", run.err)
                else:
                    self.assertIsNone(run.journal()[video]["error"])
        self.assertIn(f"Total videos cached: {len(videos) - len(failed)}\n", run.out)
        return run

    def test_files_that_are_no_videos(self):
        self.write("empty.mp4", b"")
        self.write("text.mp4", "no video at all, but a text")
        self.write("wrong.png", b"\x89PNG\r\n\x1a\nand nothing")
        os.mkdir(self.path("bare"))
        os.mkdir(self.path("broken"))
        self.write("broken/1.png", b"\x89PNG\r\n\x1a\n\0\0")
        os.mkfifo(self.path("fifo.mp4"))
        with open(os.path.join(harness.CLIPS, "h264_long_gop.mp4"), "rb") as file:
            self.write("half.mp4", file.read()[:3000])
        self.check({"empty.mp4": ("empty.mp4", "empty"), "text.mp4": ("text.mp4",), "wrong.png": ("wrong.png",),
                    "bare": ("bare", "no .png"), "broken": ("broken", "1.png"), "fifo.mp4": ("fifo.mp4", "FIFO"),
                    "half.mp4": ("half.mp4",), "missing.mp4": ("missing.mp4", "No such file")})

    def test_committed_clips_that_are_broken(self):
        os.symlink(harness.CLIPS, self.path("clips"))
        self.check({"clips/audio_only.m4a": ("audio_only.m4a", "video"), "clips/truncated.mp4": ("truncated.mp4",),
                    "clips/h264_short.mp4": None}, "--allow-outside")

    def test_paths_that_leave_the_folder(self):
        outside = os.path.join(harness.COMMON, "v0")
        os.symlink(outside, self.path("link"))
        os.symlink("v0", self.path("inside"))
        self.check({"../x/v0": ("leaves the video folder", "--allow-outside"), outside: ("leaves the video folder",),
                    "link": ("symbolic link", "--allow-outside"), "inside": None, "./v0": None})
        self.check({f"../{os.path.basename(self.folder)}/v0": None, outside: None, "link": None}, "--allow-outside")

    def test_folder_of_videos_that_is_not_there(self):
        run = self.answer(self.questions([("q", "v0")]), "--videos", self.path("nowhere"))
        self.assert_refused(run, "nowhere", "--videos")
        run = self.answer(self.questions([("q", "v0")]), "--videos", self.path("questions.json"))
        self.assert_refused(run, "questions.json", "--videos")

    def test_decoder_that_hangs_crashes_or_is_missing(self):
        os.symlink(harness.CLIPS, self.path("clips"))
        path = "clips/h264_short.mp4"

        def check(decoder, *words):
            self.check({path: words}, "--allow-outside", "--decode-timeout", "1", env={"LOWBEAM_DECODE": decoder})

        check(self.script("hang", "sleep 1000"), "no progress for 1 s")
        check(self.script("crash", "kill -SEGV $$"), "crashed", "SIGSEGV")
        check(self.path("no-decoder"), "no-decoder", "No such file")

    def test_prompt_that_does_not_fit(self):
        model = harness.with_context(harness.model_files()[0], self.path("small.gguf"), 1300)
        long = {"question": "Một câu hỏi rất dài. " * 400}
        pairs = [("long", "v0", long), ("short", "v0"), ("other", "v1")]
        run = self.answer(self.questions(pairs), model=model)
        self.assertEqual(run.status, 3, run)
        self.assert_fallback(run, "long", "context 1300", "--num-frames")
        self.assertTrue(run.journal()["long"]["prompt"])
        self.assertEqual([row["error"] for row in run.journal().values()][1:], [None, None])
        run = self.answer(self.questions(pairs), model=model, frames=4)
        self.assertEqual(run.status, 3, run)
        for i in ("long", "short", "other"):
            self.assert_fallback(run, i, "context 1300")

    def test_wrong_bounds_are_refused_at_once(self):
        for options in (("--from", "3", "--to", "2"), ("--from", "2", "--to", "2"), ("--decode-timeout", "0"),
                        ("--decode-timeout", "-1")):
            with self.subTest(options):
                self.assert_refused(self.answer(self.questions([("q", "v0")]), *options), options[0], status=2)


class Output(harness.Test):
    def test_folder_that_cannot_be_written(self):
        path = self.questions([("q", "v0")])
        for out in ("/proc/nothing/x.csv", "/proc/x.csv", self.path("none", "x.csv")):
            with self.subTest(out):
                self.assert_refused(self.answer(path, out=out), os.path.dirname(out))
        command, _ = self.command(path, out=self.path("questions.json", "results"))
        run = self.run_program(command, self.path("x.csv"))
        self.assert_refused(run, "questions.json", "Not a directory")

    def test_full_disk(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full")
        os.symlink("/dev/full", self.path("full.csv"))
        run = self.answer(self.questions([("q", "v0")]), out=self.path("full.csv"))
        self.assertEqual(run.status, 1, run)
        self.assertEqual(len(run.complaints()), 1, run)
        self.assertIn("full.csv", run.complaints()[0])

    def test_journal_that_is_there_is_left_alone(self):
        journal = self.write("run.db", "of an older run")
        run = self.answer(self.questions([("q", "v0")]), out=self.path("run.csv"))
        self.assertEqual(run.status, 1, run)
        self.assertEqual(len(run.complaints()), 1, run)
        self.assertIn("run.db", run.complaints()[0])
        with open(journal, encoding="ascii") as file:
            self.assertEqual(file.read(), "of an older run")
        self.assertFalse(os.path.exists(self.path("run.csv")))

    def test_dump_folder_that_cannot_be_made(self):
        run = self.answer(self.questions([("q", "v0"), ("r", "v1")]), "--dump", self.path("questions.json", "d"))
        self.assert_refused(run, "questions.json")
        self.assert_refused(self.answer(self.questions([("q", "v0")]), "--dump", ""), "--dump", "empty")

    def test_folder_whose_name_looks_like_a_file(self):
        os.mkdir(self.path("runs.csv"))
        run = self.answer(self.questions([("q", "v0")]), out=self.path("runs.csv"))
        self.assertEqual(run.status, 0, run)
        self.assertEqual(sorted(name[:10] for name in os.listdir(self.path("runs.csv"))), ["submission"] * 2)

    def test_names_that_would_move_the_cursor(self):
        run = self.answer(self.questions([("\033[2J\u009b1m", "v0\033[2J\nlowbeam: all is well")]))
        self.assertEqual(run.status, 3, run)  # the harness looks for escape sequences
        self.assertEqual([line for line in run.err.splitlines() if line.startswith("lowbeam: all")], [], run)
        self.assertNotIn("\u009b", run.err)

    def test_paths_that_are_not_utf8(self):
        odd = os.fsdecode(os.fsencode(self.folder) + b"/\xff")
        os.mkdir(odd)
        run = self.answer(self.questions([("q", "v0")]), "--dump", os.path.join(odd, "d"))
        self.assertEqual(run.status, 0, run)
        self.assertTrue(os.path.exists(os.path.join(odd, "d", "q", "logits.npy")))
        run = self.answer(self.questions([("q", "v0")]), model=os.path.join(odd, "none.gguf"))
        self.assert_refused(run, "none.gguf", "No such file")
        out = os.path.join(odd, "x.csv")
        run = self.answer(self.questions([("q", "v0")]), out=out)
        self.assertEqual(run.status, 0, run)
        self.assertEqual(len(run.rows()), 1)


if __name__ == "__main__":
    harness.main()
