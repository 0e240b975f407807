#!/usr/bin/env python3
"""The accuracy that docs/default-models.md states, measured again on some of its questions.

    check_accuracy.py --lowbeam PATH [--questions 105] [--no-detector] [--work DIR]

Draws clips of the held-out seeds as videos, answers their questions with the default models and fails when less is right
than the page says, by more than two points. So few questions scatter by about two points by themselves; but they are
always the same ones and were among the page's, so that a change of the figure is a change of lowbeam. The figure is read
from the page: from the line that begins with "Accuracy:" where the detector is among the models and there is such a line,
else from the one that begins with "Accuracy without the detector:".
"""
import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict

TOP = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
PAGE = os.path.join(TOP, "docs", "default-models.md")
MODELS = os.path.join(TOP, "models")
LABELS = os.path.join(MODELS, "labels-lowbeam-small.txt")
DETECTOR = os.path.join(MODELS, "grounding-dino-lowbeam-small.gguf")
FIRST_SEED = 3000000000
POINTS = 2.0


def stated(with_detector):
    """The page's figure, and whether it is the one for these models: until the page has been measured with the detector,
    what it says without is what must at least be reached with it."""
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    for what in ("Accuracy", "Accuracy without the detector") if with_detector else ("Accuracy without the detector",):
        found = re.search(rf"^{what}: ([0-9.]+) %", page, re.MULTILINE)
        if found:
            return float(found.group(1)), "" if what == "Accuracy" or not with_detector else " without it"
    sys.exit(f"check_accuracy.py: docs/default-models.md has no line that begins with '{what}: NUMBER %'")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--lowbeam", required=True), ap.add_argument("--work")
    ap.add_argument("--questions", type=int, default=105)
    ap.add_argument("--no-detector", action="store_true", help="as if models/ had no detector")
    args = ap.parse_args()
    with_detector = os.path.exists(DETECTOR) and not args.no_detector
    try:
        import cv2  # noqa: F401  (the generator draws with it)
    except ImportError:
        print("the generator needs OpenCV, which is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="lowbeam-check-") as temporary:
        work = args.work or temporary
        # As many questions a clip as the page's set has.
        seeds = f"{FIRST_SEED}:{FIRST_SEED + max(1, args.questions * 2 // 5)}"
        subprocess.run([sys.executable, os.path.join(TOP, "training", "make_dataset.py"), work, "--seeds", seeds, "--videos",
                        "--questions", str(args.questions)], check=True)
        path, out = os.path.join(work, "questions.json"), os.path.join(work, "answers.csv")
        for old in (out, out[:-4] + ".db"):
            if os.path.exists(old):
                os.remove(old)
        # One thread: two that wait for each other take ten times as long on a machine that has other work.
        done = subprocess.run([args.lowbeam, "answer", path, "--videos", work, "--out", out, "--threads", "1", "--device",
                               "cpu", "--model", os.path.join(MODELS, "lowbeam-small.gguf"), "--mmproj",
                               os.path.join(MODELS, "mmproj-lowbeam-small.gguf"),
                               *(["--detector", DETECTOR, "--labels", LABELS] if with_detector else [])],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode:
            print(done.stdout[-4000:])
            sys.exit(f"FAIL lowbeam answer ended with {done.returncode}, expected 0: every question answered")
        with open(path, encoding="utf-8") as file:
            data = json.load(file)["data"]
        with open(out, newline="", encoding="utf-8") as file:
            letters = {row["id"]: row["answer"] for row in csv.DictReader(file)}
    kinds = defaultdict(lambda: [0, 0])
    for entry in data:
        good = letters.get(entry["id"]) == entry["answer"][0]
        for kind in (entry["kind"], "all"):
            kinds[kind][0] += 1
            kinds[kind][1] += good
        if not good:
            print(f"wrong: {entry['id']}, {letters.get(entry['id'])} for {entry['answer']}")
    print(", ".join(f"{kind} {right}/{asked}" for kind, (asked, right) in sorted(kinds.items()) if kind != "all"))
    asked, right = kinds["all"]
    accuracy, (page, of) = 100 * right / asked, stated(with_detector)
    good = asked >= 100 and accuracy >= page - POINTS
    print(f"{'ok  ' if good else 'FAIL'} {right} of {asked} right, {accuracy:.1f} % "
          f"{'with' if with_detector else 'without'} the detector; docs/default-models.md says {page} %{of}, at most "
          f"{POINTS} points under it are allowed{'' if asked >= 100 else '; fewer than 100 questions say too little'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
