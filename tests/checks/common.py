"""What the checks share: a run of `lowbeam answer` with its dump read back, pictures to run it on, errors, letters.

A check is a program `check_X.py --lowbeam PATH --models DIR [--work DIR]`. It prints one line for each comparison, the
largest error of each in it, and exits 1 when one is beyond its limit. tests/checks/README.md says how they are run.
"""
import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))

import qwen2_vocab  # noqa: E402  (tools/ must be on the path first)
import reference  # noqa: E402

SYSTEM = ("你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。")
LETTER = dict(zip("ABCDEFGH", range(32, 40)))  # token ids of the letters that stand alone


class Check:
    """The command line of a check, its verdicts and its exit status."""

    def __init__(self, description):
        ap = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        ap.add_argument("--lowbeam", required=True, help="the program to check")
        ap.add_argument("--models", required=True, help="what tools/make_test_models.py --kind all wrote")
        ap.add_argument("--work", help="a folder for questions, pictures and dumps; default: a temporary one")
        ap.add_argument("--llama-cpp", default=os.environ.get("LOWBEAM_LLAMA_SRC"), help="llama.cpp's sources")
        ap.add_argument("--device", default="cpu")
        self.args = ap.parse_args()
        self.temporary = None if self.args.work else tempfile.TemporaryDirectory(prefix="lowbeam-check-")
        self.work = self.args.work or self.temporary.name
        self.failed, self.n = [], 0
        self.largest = {}  # limit: the largest error held against it

    def model(self, kind, *name):
        return os.path.join(self.args.models, kind, *name)

    def verdict(self, what, error, limit, note=""):
        """error at most limit. Not a number fails."""
        good = bool(error <= limit)
        self.largest[limit] = max(error, self.largest.get(limit, 0.0))
        self._print(good, f"{what}: {error:.2e}, limit {limit:.0e}{' ' + note if note else ''}")
        return good

    def expect(self, what, good, note=""):
        self._print(bool(good), f"{what}{': ' + note if note else ''}")
        return bool(good)

    def _print(self, good, line):
        self.n += 1
        if not good:
            self.failed.append(line)
        print(("ok   " if good else "FAIL ") + line, flush=True)

    def exit(self):
        name = os.path.basename(sys.argv[0])
        errors = ", ".join(f"{error:.1e} (limit {limit:.0e})" for limit, error in sorted(self.largest.items()))
        print(f"{name}: {self.n - len(self.failed)} of {self.n} comparisons hold" +
              (f"; largest errors {errors}" if errors else ""))
        for line in self.failed:
            print("FAIL " + line, file=sys.stderr)
        sys.exit(1 if self.failed or not self.n else 0)

    def answer(self, name, questions, *options, kind="tiny224", llm="f32", mmproj=None, mmproj_path=None, frames=3, tiles=1,
               tokens=1, status=(0, 3)):
        """Runs lowbeam on questions (a list as the JSON's "data", or a path) with the videos in WORK/videos."""
        folder = os.path.join(self.work, name)
        os.makedirs(folder, exist_ok=True)
        path = questions
        if not isinstance(questions, str):
            path = os.path.join(folder, "questions.json")
            write_questions(path, questions)
        out, dump = os.path.join(folder, "answers.csv"), os.path.join(folder, "dump")
        command = [self.args.lowbeam, "answer", path, "--model", self.model(kind, f"llm-{llm}.gguf"),
                   "--mmproj", mmproj_path or self.model(kind, f"mmproj-{mmproj or llm}.gguf"), "--num-frames", str(frames),
                   "--max-tiles", str(tiles), "--max-new-tokens", str(tokens), "--out", out, "--dump", dump,
                   "--device", self.args.device, *options]
        if "--videos" not in options:
            command += ["--videos", os.path.join(self.work, "videos")]
        for old in (out, out[:-4] + ".db"):
            if os.path.exists(old):
                os.remove(old)
        shutil.rmtree(dump, ignore_errors=True)  # what an earlier run left must not be taken for this one's
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                              timeout=1200)
        if status is not None and done.returncode not in status:
            print(" ".join(command), done.stdout[-2000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
            raise SystemExit(f"FAIL {name}: lowbeam ended with {done.returncode}, expected one of {status}")
        return Run(done, out, dump)


class Run:
    """One run: exit status, what it printed, its CSV and its dump (design.md, --dump)."""

    def __init__(self, done, out, dump):
        self.status, self.stdout, self.stderr, self.dump = done.returncode, done.stdout, done.stderr, dump
        self.rows = []
        if os.path.exists(out):
            with open(out, newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))
        self.row = {row["id"]: row for row in self.rows}

    def path(self, key, name):
        return os.path.join(self.dump, dump_name(key), name)

    def array(self, key, name):
        return np.load(self.path(key, name + ".npy"))

    def text(self, key, name="prompt.txt"):
        with open(self.path(key, name), encoding="utf-8", newline="") as file:
            return file.read()


def dump_name(key):
    """A folder's name in the dump: every byte outside [A-Za-z0-9._-] is an underscore."""
    return "".join(chr(b) if chr(b).isascii() and (chr(b).isalnum() or chr(b) in "._-") else "_"
                   for b in key.encode("utf-8"))


def write_questions(path, data):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"__count__": len(data), "data": data}, file, ensure_ascii=False, indent=1)


def question(key, text, video, choices=("A. Có", "B. Không", "C. Không rõ", "D. Không có biển báo"), **more):
    return {"id": key, "question": text, "choices": list(choices), "video_path": video, **more}


def write_video(folder, n, width, height, seed):
    """A folder of n PNG files: pictures with edges and slopes, every third one noise."""
    from PIL import Image
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    for i in range(n):
        if i % 3 == 2:
            picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        else:
            a, b = rng.uniform(-1, 1, 2)
            slope = np.stack([255 * x / width, 255 * y / height, 127 + 127 * np.sin((a * x + b * y) / 9)], -1)
            picture = slope.astype(np.uint8)
            for _ in range(15):
                x0, y0, r = rng.integers(0, width), rng.integers(0, height), rng.integers(5, height // 4)
                picture[(x - x0) ** 2 + (y - y0) ** 2 < r ** 2] = rng.integers(0, 256, 3)
        Image.fromarray(picture).save(os.path.join(folder, f"{i:03}.png"))


def relative(a, b):
    """||a - b|| / ||b|| in double precision; infinite where the shapes differ or a is not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def largest(a, b):
    """Where and how much a and b differ most, for the line that is printed."""
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}"
    at = np.unravel_index(np.abs(a.astype(np.float64) - b).argmax(), a.shape)
    return f"(largest {abs(float(a[at]) - float(b[at])):.2e} at {list(map(int, at))}: {a[at]:.6g}, expected {b[at]:.6g})"


def letter_margin(row, n_choices):
    """(letter, margin): the likeliest of the first n letters in a row of logits, and how far it leads, in units of the
    row's spread (standard deviation over the vocabulary), which is what a relative error of logits is a share of."""
    values = np.asarray(row, np.float64)
    letters = np.array([values[token] for token in list(LETTER.values())[:n_choices]])
    order = np.argsort(-letters, kind="stable")
    return "ABCDEFGH"[order[0]], float(letters[order[0]] - letters[order[1]]) / float(values.std())


class Letters:
    """design.md's measure: the same letter wherever the margin is more than six times the relative error allowed.

    A logit that is off by e (relative error times spread) moves a difference of two by sqrt(2) e, so six times e lies
    more than four standard deviations away from an honest rounding difference.

        tally = Letters(3e-2)
        tally.add("q1", row_of_one_run, row_of_the_other, n_choices)
        tally.report(check, "f16 against f32")
    """

    def __init__(self, limit):
        self.limit, self.n, self.near, self.wrong, self.narrowest = limit, 0, [], [], float("inf")

    def add(self, key, ours, expected, n_choices):
        (a, _), (b, margin) = letter_margin(ours, n_choices), letter_margin(expected, n_choices)
        self.n += 1
        self.narrowest = min(self.narrowest, margin)
        if a != b:
            (self.wrong if margin > 6 * self.limit else self.near).append(f"{key} {a} for {b}, margin {margin:.3f}")

    def report(self, check, what):
        note = f"{self.n - len(self.near) - len(self.wrong)} of {self.n} the same, narrowest margin {self.narrowest:.3f}"
        if self.near:
            note += "; differ within the margin: " + "; ".join(self.near)
        if self.wrong:
            note += "; differ beyond it: " + "; ".join(self.wrong)
        return check.expect(f"{what}, letters", self.n and not self.wrong, note)
