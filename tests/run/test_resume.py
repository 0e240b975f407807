#!/usr/bin/env python3
"""--resume: what is stored is not asked again, the CSV is that of an undisturbed run to the byte, and answers of two kinds
never come into one journal. The kills at random moments are in test_kills.py."""
import json
import os
import shutil
import signal
import sqlite3

import harness


class Resume(harness.Test):
    def twelve(self, **fields):
        """Three questions to a video; the input's order is not the videos'."""
        return self.questions([(f"q{i}", f"v{i % 4}") for i in range(12)], **fields)

    def forget(self, run, *ids):
        """Takes answers out of a finished run's journal, as if it had been stopped before them."""
        db = sqlite3.connect(run.csv_path[:-4] + ".db")
        with db:
            for i in ids:
                self.assertEqual(db.execute("DELETE FROM answer WHERE id = ?", (i,)).rowcount, 1, i)
        db.close()

    def bytes_of(self, run):
        with open(run.csv_path, "rb") as file:
            return file.read()

    def resume(self, path, run, *options, **more):
        return self.answer(path, "--resume", *options, out=run.csv_path, **more)

    def assert_not_resumed(self, path, run, *words, options=(), **more):
        """One line, exit status 1, and journal and CSV as they were."""
        before = self.bytes_of(run), run.journal()
        again = self.resume(path, run, *options, **more)
        self.assertEqual(again.status, 1, again)
        lines = again.complaints()
        self.assertEqual(len(lines), 1, again)
        for word in words:
            self.assertIn(word, lines[0], again)
        self.assertEqual((self.bytes_of(run), run.journal()), before)

    def test_missing_answers_come_back_to_the_byte(self):
        path = self.twelve(answer="C")
        run = self.answer(path)
        self.assertEqual(run.status, 0, run)
        whole, logits = self.bytes_of(run), run.logits()
        # part of a video, a whole one, nothing of the others: batches are those of the whole
        self.forget(run, "q4", "q1", "q5", "q9", "q11")
        db = sqlite3.connect(run.csv_path[:-4] + ".db")
        with db:
            db.execute("UPDATE answer SET device_bytes = 7")  # a mark on what is not asked again
        db.close()
        again = self.resume(path, run)
        self.assertEqual(again.status, 0, again)
        self.assertIn("resumed 7 of 12\n", again.out)
        self.assertIn("12 of 12 questions answered", again.out)
        self.assertIn("Total videos cached: 3\n", again.out)
        self.assertEqual(self.bytes_of(run), whole)
        self.assertEqual(run.logits(), logits)
        self.assertEqual(sum(row["device_bytes"] == 7 for row in run.journal().values()), 7)
        right = sum(row["answer"] == "C" for row in run.rows())
        self.assertIn(f"Accuracy: {right}/12", again.out)  # of all, not of those of today
        # nothing is left to do: no model is loaded
        last = self.resume(path, run)
        self.assertEqual((last.status, self.bytes_of(run)), (0, whole), last)
        self.assertIn("resumed 12 of 12\n", last.out)
        self.assertNotIn("Loading", last.err)

    def test_after_an_interruption(self):
        path = self.questions([(f"q{i}", "./" * (i // 4) + f"v{i % 4}") for i in range(60)])
        quiet = self.answer(path)
        process = self.start(path)
        self.wait_for_answers(process, 3)
        os.killpg(process.pid, signal.SIGTERM)
        first = self.finish(process)
        self.assertEqual(first.status, 130, first)
        n = len(first.rows())
        again = self.resume(path, first)
        self.assertEqual(again.status, 0, again)
        self.assertIn(f"resumed {n} of 60\n", again.out)
        self.assertEqual(self.bytes_of(again), self.bytes_of(quiet))

    def test_failed_ones_are_asked_again_unless_told_not_to(self):
        path = self.questions([("q0", "v0"), ("q1", "v0"), ("bad", "late"), ("q2", "v1")])
        run = self.answer(path)
        self.assertEqual(run.status, 3, run)
        again = self.resume(path, run, "--retry-failed", "no")
        self.assertEqual(again.status, 3, again)
        self.assertIn("resumed 4 of 4\n", again.out)
        self.assertIn("1 by fallback", again.out)
        again = self.resume(path, run)
        self.assertIn("resumed 3 of 4 (1 that failed is asked again)\n", again.out)
        self.assert_fallback(run, "bad", "No such file")
        shutil.copytree(self.path("v1"), self.path("late"))
        again = self.resume(path, run)
        self.assertEqual(again.status, 0, again)
        self.assertIsNone(run.journal()["bad"]["error"])
        self.assertIn("resumed 4 of 4\n", self.resume(path, run).out)

    def test_keep_going_and_faulty_questions(self):
        path = self.questions([("q0", "v0"), ("q1", "v0", {"choices": ["A. a"]}), ("q2", "v0")])
        run = self.answer(path, "--keep-going")
        whole = self.bytes_of(run)
        self.forget(run, "q2")
        again = self.resume(path, run, "--keep-going")
        self.assertEqual(again.status, 3, again)
        self.assertEqual(self.bytes_of(run), whole)
        self.assertIn("1 by fallback", again.out)
        again = self.resume(path, run, "--keep-going", "--retry-failed", "no")
        self.assertIn("resumed 3 of 3\n", again.out)

    def test_answers_of_two_kinds_are_refused(self):
        path = self.twelve()
        template = self.write("t.txt", "{frames}\n{question}\n{choices}\n")
        run = self.answer(path, "--prompt", template)
        self.forget(run, "q3")
        for options, words in ((("-n", "2"), ("--num-frames was 1, is 2",)),
                               (("--max-tiles", "2"), ("--max-tiles was 1, is 2",)),
                               (("--answer", "letter"), ("--answer was generate, is letter",)),
                               (("--system", "x"), ("--system",)), (("--exact",), ("--exact was no, is yes",)),
                               (("--from", "1"), ("--from was none, is 1",)), (("--batch", "2"), ("--batch",)),
                               (("--no-reuse",), ("--no-reuse",)), (("--max-new-tokens", "3"), ("--max-new-tokens",)),
                               (("--samples", "11"), ("--samples", "12", "11"))):
            with self.subTest(options):
                self.assert_not_resumed(path, run, "run1.db", "not resumed", *words,
                                        options=("--prompt", template, *options))
        self.assert_not_resumed(path, run, "the prompt template (--prompt)")
        self.write("t.txt", "{frames}\n\n{question}\n{choices}\n")
        self.assert_not_resumed(path, run, "the prompt template (--prompt)", options=("--prompt", template))
        self.write("t.txt", "{frames}\n{question}\n{choices}\n")
        other = self.questions([(f"q{i}", f"v{i % 3}") for i in range(12)], "other.json")
        self.assert_not_resumed(other, run, "the questions file", options=("--prompt", template))
        # the same in other files, under other names: the same run
        shutil.copy(path, self.path("moved.json"))
        shutil.copy(template, self.path("moved.txt"))
        again = self.resume(self.path("moved.json"), run, "--prompt", self.path("moved.txt"))
        self.assertEqual(again.status, 0, again)

    def test_other_weights_are_refused(self):
        path = self.twelve()
        models = [shutil.copy(name, self.path(os.path.basename(name))) for name in harness.model_files()]
        run = self.answer(path, model=models[0], mmproj=models[1])
        self.forget(run, "q3")
        for which, role in ((0, "(model)"), (1, "(mmproj)")):
            with self.subTest(role):
                with open(models[which], "rb") as file:
                    data = file.read()
                status = os.stat(models[which])
                with open(models[which], "r+b") as file:  # one bit, and the file's time as it was
                    file.seek(len(data) - 8)
                    file.write(bytes([data[-8] ^ 1]))
                os.utime(models[which], ns=(status.st_atime_ns, status.st_mtime_ns))
                self.assert_not_resumed(path, run, "the weights", role, "content", model=models[0], mmproj=models[1])
                with open(models[which], "wb") as file:
                    file.write(data[:-1])
                self.assert_not_resumed(path, run, "the weights", role, "size", model=models[0], mmproj=models[1])
                with open(models[which], "wb") as file:  # the same again, at another time
                    file.write(data)
        again = self.resume(path, run)  # and from another place
        self.assertEqual(again.status, 0, again)

    def test_other_videos_are_refused(self):
        path = self.twelve()
        run = self.answer(path)
        whole = self.bytes_of(run)
        self.forget(run, "q3")
        name = self.path("v1", "2.png")
        with open(name, "rb") as file:
            data = file.read()
        harness.write_png(name, 48, 32, lambda x, y: (x, y, 7))
        self.assert_not_resumed(path, run, "video v1", "content")
        with open(name, "wb") as file:
            file.write(data)
        os.rename(self.path("v1", "3.png"), self.path("v1", "4.png"))
        self.assert_not_resumed(path, run, "video v1", "content")
        os.rename(self.path("v1", "4.png"), self.path("v1", "3.png"))
        # changed under its old size and time: seen when it is read, since it has a question left
        victim = self.path("v3", "0.png")
        status, folder = os.stat(victim), os.stat(self.path("v3"))
        with open(victim, "rb") as file:
            old = file.read()
        with open(victim, "r+b") as file:
            file.seek(len(old) - 1)  # the checksum of IEND, which libpng lets pass
            file.write(b"\0")
        os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.utime(self.path("v3"), ns=(folder.st_atime_ns, folder.st_mtime_ns))
        self.assert_not_resumed(path, run, "v3")
        with open(victim, "wb") as file:
            file.write(old)
        shutil.rmtree(self.path("v0"))  # nothing is left to ask of it
        again = self.resume(path, run)
        self.assertEqual(again.status, 0, again)
        self.assertEqual(self.bytes_of(run), whole)

    def test_two_processes(self):
        path = self.questions([(f"q{i}", "./" * (i // 4) + f"v{i % 4}") for i in range(200)])
        process = self.start(path)
        self.wait_for_answers(process, 2)
        for options in (("--resume",), ()):
            run = self.answer(path, *options, out=process.csv_path)
            self.assertEqual(run.status, 1, run)
            self.assertEqual(len(run.complaints()), 1, run)
            self.assertIn(f"process {process.pid} is writing it", run.complaints()[0])
        process.kill()
        self.finish(process)

    def test_without_a_journal_or_a_name(self):
        path = self.twelve()
        run = self.answer(path, "--resume")
        self.assertEqual(run.status, 0, run)
        self.assertEqual(len(run.complaints()), 1, run)
        self.assertIn("no journal is there to resume; the run begins", run.complaints()[0])
        for options in (("--out", self.folder), ("--out", self.path("x.txt")), ("--retry-failed", "perhaps")):
            again = self.answer(path, "--resume", *options)
            self.assertEqual(again.status, 2, again)
            self.assertEqual(len(again.complaints()), 1, again)

    def test_damaged_journal(self):
        path = self.twelve()
        run = self.answer(path)
        journal = run.csv_path[:-4] + ".db"
        with open(journal, "rb") as file:
            data = file.read()
        for content, word in ((b"", "is empty"), (data[:5000], "damaged"), (data[:50], "no journal"),
                              (b"x" * 4096, "no journal"), (data[:-4096], "damaged")):
            with open(journal, "wb") as file:
                file.write(content)
            again = self.resume(path, run)
            self.assertEqual(again.status, 1, again)
            self.assertEqual(len(again.complaints()), 1, again)
            self.assertIn(word, again.complaints()[0])
            self.assertIn(journal, again.complaints()[0])
            with open(journal, "rb") as file:
                self.assertEqual(file.read(), content)


class Export(harness.Test):
    def export(self, *arguments):
        return self.run_program([harness.LOWBEAM, "export", *arguments])

    def test_csv_and_jsonl_are_made_again(self):
        odd = 'Nói "dừng",\r\nrồi 🚦?\u2028'
        path = self.questions([("a,b", "v0"), ('q"2\n', "v0", {"question": odd}), ("lost", "none"), ("d" * 4096, "v1")],
                              answer="C")
        run = self.answer(path)
        journal = run.csv_path[:-4] + ".db"
        with open(run.csv_path, "rb") as file:
            whole = file.read()
        made = self.path("made.csv")
        self.assertEqual(self.export(journal, "-o", made).status, 0)
        with open(made, "rb") as file:
            self.assertEqual(file.read(), whole)
        done = self.export(journal)
        self.assertEqual(done.out.encode(), whole)
        self.assertEqual(self.export(journal, "--columns", "id,answer").out.splitlines()[0], "id,answer")
        made = self.path("made.jsonl")
        self.assertEqual(self.export(journal, "-o", made).status, 0)
        with open(made, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file.read().splitlines()]
        stored = list(run.journal().values())
        self.assertEqual(len(lines), len(stored))
        for line, row in zip(lines, stored):
            self.assertEqual(line.keys(), row.keys())
            for name in row:
                if name.startswith("letter_"):
                    self.assertEqual(line[name], row[name] and json.loads(row[name]))
                else:
                    self.assertEqual(line[name], row[name], name)
        self.assertIn(odd, lines[1]["prompt"])
        done = self.export(journal, "--format", "jsonl", "--columns", "error,id")
        self.assertEqual(list(json.loads(done.out.splitlines()[2])), ["error", "id"])

    def test_faults(self):
        for arguments, status, word in (((), 2, "which journal"), (("a.db", "--format", "xml"), 2, "csv or jsonl"),
                                        (("a.db", "--columns", "name"), 2, "'name' is none of"),
                                        (("a.db",), 1, "No such file"), ((self.folder,), 1, "no regular file")):
            run = self.export(*arguments)
            self.assertEqual(run.status, status, run)
            self.assertEqual(len(run.err.splitlines()), 1, run)
            self.assertIn(word, run.err)


if __name__ == "__main__":
    harness.main()
