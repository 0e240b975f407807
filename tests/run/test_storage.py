#!/usr/bin/env python3
"""Disks that are full or cannot be written, journals that lost a part of themselves: no answer that was stored is lost, what
cannot go on says why in one line, and what can go on ends with the CSV of an undisturbed run, to the byte."""
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess

import harness


class Storage(harness.Test):
    def many(self, n=36):
        """Three questions to a video, each video by a name of its own."""
        return self.questions([(f"q{i}", "./" * (i // 12) + f"v{i // 3 % 4}") for i in range(n)])

    def bytes_of(self, path):
        with open(path, "rb") as file:
            return file.read()

    def kill_with(self, path, n, **more):
        """A run that was killed with n answers stored, or some more."""
        process = self.start(path, **more)
        self.wait_for_answers(process, n)
        process.kill()
        self.finish(process)
        return process.csv_path

    def assert_goes_on(self, path, csv_path, expected, *words):
        run = self.answer(path, "--resume", out=csv_path)
        self.assertEqual(run.status, 0, run)
        for word in words:
            self.assertIn(word, run.out, run)
        self.assertEqual(self.bytes_of(csv_path), expected)
        return int(re.search(r"resumed (\d+) of", run.out)[1])

    def in_mount(self, script):
        """Runs a shell script in a mount space of its own, where it may mount a tmpfs on "$M"."""
        os.makedirs(self.path("mount"), exist_ok=True)
        probe = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs none '{self.path('mount')}'"]
        try:
            subprocess.run(probe, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError):
            self.skipTest("a tmpfs cannot be mounted here (unshare -rm); test_journal fills a file instead")
        return self.run_program(["unshare", "-rm", "sh", "-c", script], env={"M": self.path("mount")})

    def test_full_disk(self):
        path = self.many()
        quiet = self.answer(path)
        command, csv_path = self.command(path, out=self.path("mount", "run.csv"))
        words = " ".join(f"'{word}'" for word in command)
        run = self.in_mount(
            f'mount -t tmpfs -o size=256k none "$M"; {words}; echo "first $?"; {words} --resume; echo "second $?"; '
            f'mount -o remount,size=16m "$M"; {words} --resume; echo "third $?"; cp "$M"/run.csv kept.csv; ls -A "$M"')
        self.assertIn("first 1\n", run.out, run)
        self.assertIn("second 1\n", run.out, run)
        self.assertIn("third 0\n", run.out, run)
        lines = run.complaints()
        self.assertEqual(len(lines), 2, run)
        stored = int(re.search(r"(\d+) of 36 answers are stored: --resume goes on from there", lines[0])[1])
        for line in lines:
            self.assertIn("run.db: cannot be written: No space left on device; free some space", line, run)
        resumed = [int(n) for n in re.findall(r"resumed (\d+) of 36", run.out)]
        self.assertTrue(0 < stored <= resumed[0] <= resumed[1] < 36, (stored, resumed))
        self.assertTrue(run.out.endswith("run.csv\nrun.db\n"), run)  # no temporary file, no log
        self.assertEqual(self.bytes_of(self.path("kept.csv")), self.bytes_of(quiet.csv_path))

    def test_disk_that_becomes_read_only(self):
        path = self.many(6)
        quiet = self.answer(path)
        command, _ = self.command(path, out=self.path("mount", "run.csv"))
        words = " ".join(f"'{word}'" for word in command)
        run = self.in_mount(
            f'mount -t tmpfs none "$M"; {words} --samples 6 && rm "$M"/run.csv; mount -o remount,ro "$M"; '
            f'{words} --resume; echo "resumed $?"; {harness.LOWBEAM} export "$M"/run.db >kept.csv; echo "export $?"')
        self.assertIn("resumed 1\n", run.out, run)
        self.assertIn("export 0\n", run.out, run)
        self.assertEqual(len(run.complaints()), 1, run)
        self.assertIn("run.db: cannot be written: Read-only file system", run.err)
        self.assertEqual(self.bytes_of(self.path("kept.csv")), self.bytes_of(quiet.csv_path))

    def test_log_that_was_lost(self):
        """What stood in the log alone is asked again."""
        path = self.many()
        expected = self.bytes_of(self.answer(path).csv_path)
        csv_path = self.kill_with(path, 10)
        os.remove(csv_path[:-4] + ".db-wal")
        with contextlib.suppress(FileNotFoundError):
            os.remove(csv_path[:-4] + ".db-shm")
        self.assert_goes_on(path, csv_path, expected)

    def test_log_that_was_cut_short(self):
        path = self.many()
        expected = self.bytes_of(self.answer(path).csv_path)
        csv_path = self.kill_with(path, 20)
        base = csv_path[:-4] + ".db"
        kept = {suffix: self.bytes_of(base + suffix) for suffix in ("", "-wal")}
        chance = random.Random(7)
        counts = []
        for size in sorted([0, 31, 33] + [chance.randrange(len(kept["-wal"])) for _ in range(6)]):
            for suffix, data in kept.items():
                with open(base + suffix, "wb") as file:
                    file.write(data[:size] if suffix else data)
            with contextlib.suppress(FileNotFoundError):
                os.remove(base + "-shm")
            with contextlib.suppress(FileNotFoundError):
                os.remove(csv_path)
            # not run to its end each time: what it finds is what counts
            run = self.answer(path, "--resume", "-n", "9", out=csv_path)
            self.assertEqual((run.status, len(run.complaints())), (1, 1), run)
            self.assertIn("--num-frames was 1, is 9", run.err)
            counts.append(len(harness.Run([], 0, "", "", csv_path).journal()))
        self.assertEqual(counts, sorted(counts))  # the longer the log, the more is there
        self.assertGreater(counts[-1], counts[0])
        self.assertEqual(self.assert_goes_on(path, csv_path, expected), counts[-1])

    def test_stopped_in_every_way(self):
        """SIGTERM, SIGINT and SIGHUP in turn, each time further on, until it is through."""
        path = self.many()
        expected = self.bytes_of(self.answer(path).csv_path)
        csv_path, stored, n_stops = self.path("run.csv"), 0, 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process = self.start(path, "--resume", out=csv_path)
            self.wait_for_answers(process, stored + 4)
            os.killpg(process.pid, number)
            run = self.finish(process)
            self.assertEqual(run.status, 130, run)
            rows = run.rows()
            self.assertGreaterEqual(len(rows), stored + 4)
            stored, n_stops = len(rows), n_stops + 1
        self.assertEqual(self.assert_goes_on(path, csv_path, expected), stored)
        print(f"{n_stops} stops, 0 lost")

    def test_csv_that_cannot_be_made_is_made_later(self):
        path = self.many(6)
        out = self.path("link.csv")
        os.symlink("/dev/full", out)
        run = self.answer(path, out=out)
        self.assertEqual((run.status, len(run.complaints())), (1, 1), run)
        self.assertIn("6 of 6 answers are stored: --resume goes on from there", run.err)
        os.remove(out)
        run = self.answer(path, "--resume", out=out)
        self.assertEqual(run.status, 0, run)
        self.assertIn("resumed 6 of 6\n", run.out)
        self.assertEqual(len(run.rows()), 6)

    def test_folder_whose_files_may_not_be_written(self):
        if os.geteuid() == 0 and not shutil.which("setpriv"):
            self.skipTest("root may write everywhere, and there is no setpriv to take that from it")
        path = self.many(6)
        run = self.answer(path)
        os.chmod(run.csv_path[:-4] + ".db", 0o444)
        command, _ = self.command(path, "--resume", out=run.csv_path)
        if os.geteuid() == 0:
            command = ["setpriv", "--bounding-set=-dac_override", *command]
        again = self.run_program(command, run.csv_path)
        self.assertEqual((again.status, len(again.complaints())), (1, 1), again)
        self.assertIn("run1.db: cannot be written: Permission denied", again.err)


if __name__ == "__main__":
    harness.main()
