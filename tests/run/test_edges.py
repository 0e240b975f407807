#!/usr/bin/env python3
"""Inputs at the edges: very many questions, one; names that are long or odd; videos of no frame and of one; two runs at once;
other locales; a clock that is set back. LOWBEAM_MANY: how many questions "very many" are (3,000; `make soak`: 100,000), a
twentieth of it on one video."""
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time

import harness

MANY = int(os.environ.get("LOWBEAM_MANY", "3000"))
SANITIZED = bool(os.environ.get("ASAN_OPTIONS"))


class Many(harness.Test):
    def setUp(self):
        super().setUp()
        # in memory: what is measured is lowbeam, not 100,000 times the disk
        folder = tempfile.mkdtemp(prefix="lowbeam-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.addCleanup(shutil.rmtree, folder)
        self.csv_path = os.path.join(folder, "run.csv")

    def measured(self, questions, *options):
        """(exit status, seconds, peak MiB of lowbeam itself, its stdout and stderr); its stderr has a line a failure."""
        command, _ = self.command(questions, *options, out=self.csv_path)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began = time.monotonic()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                       env=self.environment(None))
            peak = 0
            while process.poll() is None:
                with contextlib.suppress(OSError, StopIteration), open(f"/proc/{process.pid}/status", "rb") as file:
                    peak = max(peak, int(next(line for line in file if line.startswith(b"VmHWM")).split()[1]) / 1024)
                time.sleep(0.02)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return process.returncode, time.monotonic() - began, peak, *texts

    def test_very_many(self):
        """Of their videos all but four are not there, so that the model has little to do and the rest of lowbeam all."""
        pairs = [(f"q{i}", f"v{i}" if i < 4 else f"none/{i // 3}.mp4") for i in range(MANY)]
        path = self.questions(pairs)
        status, seconds, peak, out, err = self.measured(path)
        self.assertEqual(status, 3, err[-2000:])
        self.assertIn(f"{MANY} of {MANY} questions answered", out)
        print(f"{MANY} questions in {seconds:.1f} s ({1e3 * seconds / MANY:.2f} ms each), {peak:.0f} MiB at most")
        with open(self.csv_path, "rb") as file:
            whole = file.read()
        self.assertEqual(whole.count(b"\r\n"), MANY + 1)
        # 2 KiB a question and what the program has anyhow
        if not SANITIZED:
            self.assertLess(peak, 60 + MANY * 2 / 1024)
        # all stored, but for one: how long finding that takes
        db = sqlite3.connect(self.csv_path[:-4] + ".db")
        with db:
            db.execute("DELETE FROM answer WHERE id = 'q2'")
        db.close()
        status, seconds, peak, out, err = self.measured(path, "--resume", "--retry-failed", "no")
        self.assertEqual(status, 3, err[-2000:])
        self.assertIn(f"resumed {MANY - 1} of {MANY}\n", out)
        print(f"{MANY} questions in {seconds:.1f} s, resumed with one left, {peak:.0f} MiB at most")
        with open(self.csv_path, "rb") as file:
            self.assertEqual(file.read(), whole)

    def test_very_many_on_one_video(self):
        n = MANY // 20
        path = self.questions([(f"q{i}", "v0") for i in range(n)])
        status, seconds, peak, out, err = self.measured(path, "--answer", "letter", "--batch", "64")
        self.assertEqual(status, 0, err[-2000:])
        self.assertIn("Total videos cached: 1\n", out)
        print(f"{n} questions in {seconds:.1f} s on one video ({1e3 * seconds / n:.1f} ms each), {peak:.0f} MiB at most")
        db = sqlite3.connect(self.csv_path[:-4] + ".db")
        rows = db.execute("SELECT question, answer, letter_logits FROM answer ORDER BY question").fetchall()
        with db:
            db.execute("DELETE FROM answer WHERE question = ?", (n - 3,))
        self.assertEqual(len(rows), n)
        status, seconds, peak, out, err = self.measured(path, "--answer", "letter", "--batch", "64", "--resume")
        self.assertEqual(status, 0, err[-2000:])
        again = db.execute("SELECT question, answer, letter_logits FROM answer ORDER BY question").fetchall()
        db.close()
        self.assertEqual(again, rows)  # the same batch: the same numbers to the last bit
        print(f"{n} questions in {seconds:.1f} s on one video, resumed with one left")


class Names(harness.Test):
    ODD = ["dòng\nmới", "a\r\nb", 'nháy "kép" và \'đơn\'', "a,b;c\td", "🚦 đèn 👩‍👩‍👧", "=1+1", " trước và sau ", "\u2028\u0085",
           "x" * 4096, "ệ" * 1365, "%s%n%d", "..", "e\u0301 và é", "\\", "NULL", "-1"]

    def test_odd_ids_and_paths(self):
        pairs = []
        for k, name in enumerate(self.ODD):
            folder = name.encode()[:200].decode(errors="ignore").replace("/", "_")  # what a file system takes
            folder = "w" + folder if folder == ".." else folder
            if not os.path.isdir(self.path(folder)):
                shutil.copytree(self.path(f"v{k % 4}"), self.path(folder))
            pairs.append((name, folder))
        pairs.append(("long path", "./" * 1800 + "v0"))  # as long as a path can be
        pairs.append(("too long", "./" * 2100 + "v0"))
        run = self.answer(self.questions(pairs))
        self.assertEqual(run.status, 3, run)
        self.assertEqual([row["id"] for row in run.rows()], [i for i, _ in pairs])
        journal = run.journal()
        self.assertEqual({i for i, row in journal.items() if row["error"]}, {"too long"})
        self.assert_fallback(run, "too long", "too long")
        for i, video in pairs:
            self.assertEqual(journal[i]["video_path"], video)
        exported = self.run_program([harness.LOWBEAM, "export", run.csv_path[:-4] + ".db", "--format", "jsonl"])
        lines = exported.out.splitlines()
        self.assertEqual([json.loads(line)["id"] for line in lines], [i for i, _ in pairs])
        self.assertEqual([json.loads(line)["video_path"] for line in lines], [video for _, video in pairs])
        with open(run.csv_path, "rb") as file:
            whole = file.read()
        db = sqlite3.connect(run.csv_path[:-4] + ".db")
        with db:
            db.execute("DELETE FROM answer WHERE question % 2")
        db.close()
        again = self.answer(self.path("questions.json"), "--resume", out=run.csv_path)
        self.assertEqual(again.status, 3, again)
        with open(run.csv_path, "rb") as file:
            self.assertEqual(file.read(), whole)

    def test_one_question(self):
        run = self.answer(self.questions([("q", "v0")]))
        self.assertEqual((run.status, len(run.rows())), (0, 1), run)
        self.assertIn("1 of 1 questions answered", run.out)


class Videos(harness.Test):
    def test_no_frame_and_one(self):
        os.mkdir(self.path("nothing"))
        os.mkdir(self.path("single"))
        shutil.copy(self.path("v0", "0.png"), self.path("single", "0.png"))
        shutil.copy(self.path("v0", "0.png"), self.path("alone.png"))
        pairs = [("none", "nothing"), ("one", "single"), ("file", "alone.png"), ("sound", "v1")]
        if shutil.which("ffmpeg"):
            for name, n in (("no", 0), ("one", 1)):
                subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10", "-frames:v",
                                str(n), "-c:v", "mpeg4", self.path(f"{name}.avi")], check=False)
            pairs += [("no.avi", "no.avi"), ("one.avi", "one.avi")]
        run = self.answer(self.questions(pairs, question="Có gì trên đường?"), frames=4)
        self.assertEqual(run.status, 3, run)
        journal = run.journal()
        failed = {i for i, row in journal.items() if row["error"]}
        self.assertEqual(failed, {"none", "no.avi"} & {i for i, _ in pairs}, run)
        self.assertEqual(journal["one"]["letter_logits"], journal["file"]["letter_logits"])
        for row in journal.values():
            if not row["error"]:
                self.assertEqual(row["prompt"].count("<image>"), 4)  # the one frame four times, as decord gives it


class Surroundings(harness.Test):
    def eight(self):
        return self.questions([(f"q{i}", f"v{i % 4}") for i in range(8)])

    def test_two_files_at_once(self):
        """Into one folder, in the same second: neither gets in the other's way."""
        folder = self.path("results")
        paths = [self.questions([(f"{k}-{i}", f"v{i % 4}") for i in range(6)], f"{k}.json") for k in range(3)]
        processes = [self.start(path, out=folder) for path in paths]
        runs = [self.finish(process) for process in processes]
        for run in runs:
            self.assertEqual(run.status, 0, run)
        names = sorted(name for name in os.listdir(folder) if name.endswith(".csv"))
        self.assertEqual(len(names), len(paths), names)
        ids = []
        for run in runs:
            run.csv_path = next(line[5:] for line in run.out.splitlines() if line.startswith("CSV: "))
            ids.append([row["id"] for row in run.rows()])
            self.assertEqual(len(run.journal()), 6)
        self.assertEqual(ids, [[f"{k}-{i}" for i in range(6)] for k in range(3)])

    def test_locales(self):
        path = self.eight()
        plain = self.answer(path, "--from", "0.5", env={"LC_ALL": "C"})
        self.assertEqual(plain.status, 0, plain)
        for locale in ("tr_TR.UTF-8", "tr_TR", "de_DE.UTF-8", "C.UTF-8", "no_SUCH"):
            with self.subTest(locale):
                run = self.answer(path, "--from", "0.5", "--device", "CPU", env={"LC_ALL": locale, "LANG": locale})
                self.assertEqual(run.status, 0, run)
                self.assertEqual(run.rows(), plain.rows())
                self.assertEqual(run.logits(), plain.logits())
                exported = self.run_program([harness.LOWBEAM, "export", run.csv_path[:-4] + ".db", "--format", "jsonl"],
                                            env={"LC_ALL": locale})
                for line in exported.out.splitlines():
                    self.assertGreater(json.loads(line)["generate_s"], 0)

    def test_clock_that_is_set_back(self):
        preload = os.path.join(harness.BUILD, "tests", "libclock_back.so")
        if SANITIZED:
            self.skipTest("AddressSanitizer has to be loaded first itself")
        path = self.questions([(f"q{i}", "./" * (i // 4) + f"v{i % 4}") for i in range(40)])
        quiet = self.answer(path)
        env = {"LD_PRELOAD": preload}
        probe = subprocess.run(["date", "+%s"], env={**os.environ, **env}, stdout=subprocess.PIPE, check=True)
        self.assertGreater(int(probe.stdout), 0)
        run = self.answer(path, env=env)
        self.assertEqual(run.status, 0, run)
        self.assertEqual((run.rows(), run.logits()), (quiet.rows(), quiet.logits()))
        for row in run.journal().values():
            for name in ("decode_s", "encode_s", "prompt_s", "generate_s"):
                self.assertTrue(0 <= row[name] < 100, (name, row[name]))
        # a Ctrl-C is seen at once, whatever the clock says
        process = self.start(path, env=env)
        self.wait_for_answers(process, 3)
        process.terminate()
        self.assertEqual(self.finish(process, 20).status, 130)


if __name__ == "__main__":
    harness.main()
