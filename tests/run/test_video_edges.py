#!/usr/bin/env python3
"""Videos at the edges: no frame, one frame, six hours; a read-only mount, symbolic links in a circle, and what is no file."""
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time

import harness
import mp4_file

HOURS = 6


# 648,000 frames are to be counted within that: with a sanitizer, on a machine that others use, 20 s are not enough.
PATIENCE = ("--decode-timeout", "200") if {"ASAN_OPTIONS", "TSAN_OPTIONS"} & os.environ.keys() else ()


class VideoEdges(harness.Test):
    def clip(self, name):
        return mp4_file.Source(os.path.join(harness.CLIPS, name))

    def frames(self, path, n=8, **more):
        run = self.run_program([harness.LOWBEAM, "frames", path, "-n", str(n), *PATIENCE], **more)
        self.assertEqual(run.status, 0, run)
        return json.loads(run.out)

    def ask(self, names, *options, frames=2, **more):
        return self.answer(self.questions([(name, name) for name in names]), *options, frames=frames, **more)

    def test_no_frame(self):
        self.clip("av1.mp4").write(self.path("none.mp4"), 1, 30, n_samples=0)
        self.write_empty_avi("none.avi")
        os.mkdir(self.path("none"))
        run = self.ask(["none.mp4", "v0", "none.avi", "none", "v1"])
        self.assertEqual(run.status, 3, run)
        for name in ("none.mp4", "none.avi", "none"):
            self.assert_fallback(run, name, name)
            self.assertNotIn("\n", run.journal()[name]["error"])
        for name in ("v0", "v1"):
            self.assertIsNone(run.journal()[name]["error"], run)

    def write_empty_avi(self, name):
        """The header of mpeg4_bframes.avi, with a movi list that holds nothing."""
        with open(os.path.join(harness.CLIPS, "mpeg4_bframes.avi"), "rb") as file:
            data = file.read()
        end = data.index(b"movi") + 4
        head = bytearray(data[:end])
        struct.pack_into("<I", head, end - 8, 4)
        struct.pack_into("<I", head, 4, end - 8)
        self.write(name, bytes(head))

    def test_one_frame(self):
        for clip in ("av1.mp4", "h264_short.mp4"):
            path = self.clip(clip).write(self.path(clip), 1, 30, n_samples=1)
            seen = self.frames(path)
            self.assertEqual({frame["index"] for frame in seen["frames"]}, {0}, seen)
            self.assertEqual(seen["n_total"], 1, seen)
        shutil.copy(self.path("v0", "0.png"), self.path("one.png"))
        run = self.ask(["av1.mp4", "h264_short.mp4", "one.png"])
        self.assertEqual(run.status, 0, run)

    def test_six_hours(self):
        """At 30 frames a second, some 648,000 of them; and at one in ten seconds."""
        source = self.clip("av1.mp4")
        for fps, name in ((30, "long.mp4"), (0.1, "slow.mp4")):
            rounds = round(HOURS * 3600 * fps / len(source.sizes))
            source.write(self.path(name), rounds, fps)
            began = time.monotonic()
            seen = self.frames(self.path(name), 8)
            took = time.monotonic() - began
            n = rounds * len(source.sizes)
            self.assertEqual(seen["n_total"], n, seen)
            segment = (n - 1) / 8
            for i, frame in enumerate(seen["frames"]):
                self.assertEqual(frame["index"], int(segment / 2 + round(segment * i)))
                self.assertAlmostEqual(frame["time_s"], frame["index"] / fps, delta=1e-3)
            size = os.path.getsize(self.path(name)) >> 10
            print(f"{HOURS} hours at {fps} frames a second: {n} frames, {size} KiB, 8 of them in {took:.1f} s")
            self.assertLess(took, 100)
        run = self.ask(["long.mp4", "v0", "slow.mp4"], *PATIENCE)
        self.assertEqual(run.status, 0, run)

    def test_six_hours_bounded(self):
        source = self.clip("av1.mp4")
        source.write(self.path("long.mp4"), round(HOURS * 3600 * 30 / len(source.sizes)), 30)
        run = self.ask(["long.mp4"], "--from", "21590", "--to", "21595", *PATIENCE)
        self.assertEqual(run.status, 0, run)

    def test_what_is_no_file(self):
        os.symlink("circle_b", self.path("circle_a"))
        os.symlink("circle_a", self.path("circle_b"))
        os.symlink("self.mp4", self.path("self.mp4"))
        os.symlink("/dev/zero", self.path("zero.mp4"))
        os.symlink("/dev/tty", self.path("tty.mp4"))
        os.mkfifo(self.path("fifo.mp4"))
        os.mkfifo(self.path("fifo.png"))
        os.mkdir(self.path("pipes"))
        os.mkfifo(self.path("pipes", "1.png"))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path("socket.mp4"))
            expected = {"circle_a": "symbolic links", "self.mp4": "symbolic links", "zero.mp4": "device",
                        "tty.mp4": "device", "fifo.mp4": "FIFO", "fifo.png": "FIFO", "pipes": "not a regular file",
                        "socket.mp4": "socket"}
            began = time.monotonic()
            run = self.ask([*expected, "v0"], "--allow-outside")
            took = time.monotonic() - began
        self.assertEqual(run.status, 3, run)
        for name, words in expected.items():
            self.assert_fallback(run, name, name, words)
            self.assertTrue(re.fullmatch(r"[^\n]+", run.journal()[name]["error"]))
        self.assertIsNone(run.journal()["v0"]["error"], run)
        self.assertLess(took, 20 * 4, "something was waited for")

    def test_read_only_mount(self):
        """In a mount namespace of its own, so that nothing outside sees it."""
        videos, out = self.path("videos"), self.path("out")
        for folder in (videos, out):
            os.mkdir(folder)
        shutil.copy(os.path.join(harness.CLIPS, "h264_short.mp4"), videos)
        shutil.copytree(self.path("v0"), os.path.join(videos, "v0"))
        mount = f"mount --bind '{videos}' '{videos}' && mount -o remount,ro,bind '{videos}'"
        probe = subprocess.run(["unshare", "-rm", "sh", "-c", f"{mount} && ! touch '{videos}/x'"], check=False,
                               stdin=subprocess.DEVNULL, capture_output=True)
        if probe.returncode:
            self.skipTest("no mount namespace: " + probe.stderr.decode().strip())
        questions = self.questions([("q", "h264_short.mp4"), ("r", "v0")])
        command, csv_path = self.command(questions, out=os.path.join(out, "run.csv"))
        command[command.index("--videos") + 1] = videos
        run = self.run_program(["unshare", "-rm", "sh", "-c", mount + ' && exec "$@"', "sh", *command], csv_path)
        self.assertEqual(run.status, 0, run)
        self.assertEqual(sorted(os.listdir(videos)), ["h264_short.mp4", "v0"])


if __name__ == "__main__":
    harness.main()
