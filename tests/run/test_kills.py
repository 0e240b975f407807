#!/usr/bin/env python3
"""Kills lowbeam with SIGKILL at random moments and resumes it each time, with the default models, until it was killed
LOWBEAM_KILLS times (12; `make soak`: 200). Counted are answers that were shown as done or stored and are not there after the
kill (lost), and stored ones that were stored again (doubled). Each run that comes to its end has each question once, and a
CSV that is byte for byte that of an undisturbed run. LOWBEAM_SEED repeats one sequence of moments."""
import contextlib
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time

import harness

N_KILLS = int(os.environ.get("LOWBEAM_KILLS", "12"))
MODELS = [os.path.join(harness.TOP, "models", name) for name in ("lowbeam-small.gguf", "mmproj-lowbeam-small.gguf")]


class Kills(harness.Test):
    def command_for(self, csv_path):
        return [harness.LOWBEAM, "answer", self.path("questions.json"), "--videos", self.folder, "--model", MODELS[0],
                "--mmproj", MODELS[1], "-n", "2", "-t", "1", "--max-new-tokens", "4", "--out", csv_path, "--resume"]

    def stored(self, csv_path):
        """What the journal holds, from a copy of its files as a crash left them: {question: row}."""
        copy = self.path("copy")
        shutil.rmtree(copy, ignore_errors=True)
        os.mkdir(copy)
        base = csv_path[:-4] + ".db"
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(base + suffix, os.path.join(copy, "run.db" + suffix))
        if not os.path.exists(os.path.join(copy, "run.db")):
            return {}
        db = sqlite3.connect(os.path.join(copy, "run.db"))
        try:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchone()[0], "ok")
            return {row[0]: row for row in db.execute("SELECT * FROM answer")}
        finally:
            db.close()

    def begin(self, csv_path):
        """The process, and the terminal on which it shows its progress."""
        main, terminal = os.openpty()
        process = subprocess.Popen(self.command_for(csv_path), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=terminal, env=self.environment(None), start_new_session=True)
        os.close(terminal)
        os.set_blocking(main, False)
        self.addCleanup(self.end, process)
        return process, main

    @staticmethod
    def shown(terminal):
        """All that stands on the terminal now."""
        text = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed; EAGAIN: nothing more
            while piece := os.read(terminal, 1 << 16):
                text += piece
        return text.decode(errors="replace")

    def test_kills(self):
        seed = int(os.environ.get("LOWBEAM_SEED", random.SystemRandom().randrange(1 << 32)))
        chance = random.Random(seed)
        print(f"seed {seed}")
        n = 42  # three questions to a video, of four clips by many names; the input's order is not the videos'
        self.questions([(f"q{i}", "./" * (i % 14 // 4) + f"v{i % 14 % 4}") for i in range(n)])
        quiet = self.path("quiet.csv")
        began = time.monotonic()
        process, terminal = self.begin(quiet)
        first_s, text = None, ""
        while process.poll() is None:
            text += self.shown(terminal)
            if first_s is None and "/42 questions" in text:
                first_s = time.monotonic() - began
            time.sleep(0.01)
        os.close(terminal)
        whole_s = time.monotonic() - began
        self.assertIn(process.returncode, (0, 3), text)  # 3: the clips are noise to the model
        with open(quiet, "rb") as file:
            expected = file.read()
        self.assertEqual(len(self.stored(quiet)), n)

        killed = lost = doubled = finished = wrong = 0
        killed_after = []  # how many answers were stored at each kill
        csv_path, before = self.path("run.csv"), {}
        while killed < N_KILLS or before:
            # some moments lie before the first answer, most between answers, the last ones while the CSV is written
            most_s = 1.2 * first_s + 0.25 * (whole_s - first_s) if killed < N_KILLS else harness.LIMIT_S
            wait_s = chance.uniform(0, most_s) if killed < N_KILLS else most_s
            to_group = chance.random() < 0.3
            process, terminal = self.begin(csv_path)
            text, until = "", time.monotonic() + wait_s
            while process.poll() is None and time.monotonic() < until:
                text += self.shown(terminal)
                time.sleep(min(0.01, max(0, until - time.monotonic())))
            ended = process.poll() is not None
            if not ended:
                (os.killpg if to_group else os.kill)(process.pid, signal.SIGKILL)
                killed += 1
            process.wait()
            text += self.shown(terminal)
            os.close(terminal)
            if ended:
                self.assertIn(process.returncode, (0, 3), text)
            now = self.stored(csv_path)
            done = [int(count) for count in re.findall(rf"(\d+)/{n} questions", text)]
            missing = {i for i in before if i not in now}
            lost += max(len(missing), (done[-1] if done else 0) - len(now))
            doubled += sum(now[i] != row for i, row in before.items() if i in now)
            before = now
            if not ended:
                killed_after.append(len(now))
                continue
            finished += 1
            with open(csv_path, "rb") as file:
                wrong += file.read() != expected
            self.assertEqual(len(now), n)
            for name in (csv_path, csv_path[:-4] + ".db"):
                os.remove(name)
            self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("run.")], [])
            before = {}
        left = [name for name in os.listdir(self.folder) if name.startswith(".lowbeam")]
        print(f"{killed} kills, {lost} lost, {doubled} doubled; {finished} runs of {n} questions came to their end, {wrong} "
              f"of their CSVs differ; killed with {min(killed_after)} to {max(killed_after)} answers stored, "
              f"{len(left)} times while a file was written")
        self.assertEqual((lost, doubled, wrong), (0, 0, 0))
        self.assertGreater(finished, 0)


if __name__ == "__main__":
    harness.main()
