#!/usr/bin/env python3
"""What each saving costs in answers: accuracy and letters of the default models under other weights and options.

    saving_table.py --lowbeam PATH --models DIR --data DIR --work DIR [--detector DET.gguf] [--labels FILE]
                    [--questions N] [--threads N] [--only NAME,...]

DIR of models: llm-<type>.gguf and mmproj-<type>.gguf for f32, f16 and q8_0, as training/export.py --types f32,f16,q8_0
writes them. DIR of data: what training/make_dataset.py --videos wrote. The first row is the f16 files with the detector,
where one is given; the other rows' letters are held against it, question by question. A row whose option this lowbeam
does not have is named and left out. Each row's CSV stays in WORK, and a row whose CSV is there is not run again, so that
an interrupted table goes on (lowbeam writes a CSV whole or not at all); the caches' folder stays there, too, and is
emptied before its first row. Nothing but the standard library is needed.
"""
import argparse
import contextlib
import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import defaultdict

# name, weights, options, with the detector (where there is one). CACHE stands for the caches' folder in WORK: the row
# "cache-again" finds there what "cache" left.
CACHE = "CACHE"
ROWS = [("default", "f16", [], True),
        ("f32-exact", "f32", ["--exact"], True),
        ("q8_0", "q8_0", [], True),
        ("kv-q8", "f16", ["--kv-bits", "8"], True),
        ("no-reuse", "f16", ["--no-reuse"], True),
        ("batch-1", "f16", ["--batch", "1"], True),
        ("batch-2", "f16", ["--batch", "2"], True),
        ("tile-batch-1", "f16", ["--tile-batch", "1"], True),
        ("ubatch-128", "f16", ["--ubatch", "128"], True),
        ("letter", "f16", ["--answer", "letter"], True),
        ("cache", "f16", ["--cache", "1GiB", "--cache-dir", CACHE], True),
        ("cache-again", "f16", ["--cache", "1GiB", "--cache-dir", CACHE], True),
        ("frames-4", "f16", ["--num-frames", "4"], True),
        ("frames-16", "f16", ["--num-frames", "16"], True),
        ("tiles-6", "f16", ["--max-tiles", "6"], True),
        ("detector-off", "f16", [], False),
        ("off-frames-4", "f16", ["--num-frames", "4"], False),
        ("off-frames-16", "f16", ["--num-frames", "16"], False),
        ("off-tiles-6", "f16", ["--max-tiles", "6"], False)]


def parse():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("lowbeam", "models", "data", "work"):
        ap.add_argument("--" + name, required=True)
    ap.add_argument("--detector", help="without it no row has one, and the rows named off... are left out")
    ap.add_argument("--labels", help="what the detector looks for, one label a line")
    ap.add_argument("--questions", type=int, default=200, help="the first N of the file (default 200)")
    ap.add_argument("--threads", type=int, default=0, help="CPU threads (default: lowbeam's)")
    ap.add_argument("--only", help="these rows alone: " + ", ".join(row[0] for row in ROWS))
    args = ap.parse_args()
    unknown = set((args.only or ROWS[0][0]).split(",")) - {row[0] for row in ROWS}
    if unknown:
        ap.error(f"--only: there is no row named {', '.join(sorted(unknown))}")
    return args


def run(args, name, weights, options, with_detector, n):
    """{id: letter}, how many of them are A because no letter was said; a text where there is no such option."""
    out = os.path.join(args.work, f"{name}-{n}.csv")
    if not os.path.exists(out):
        command = [args.lowbeam, "answer", os.path.join(args.data, "questions.json"), "--videos", args.data, "--model",
                   os.path.join(args.models, f"llm-{weights}.gguf"), "--mmproj",
                   os.path.join(args.models, f"mmproj-{weights}.gguf"), "--samples", str(n), "--out", out, *options]
        if args.threads:
            command += ["--threads", str(args.threads)]
        if with_detector and args.detector:
            command += ["--detector", args.detector] + (["--labels", args.labels] if args.labels else [])
        if CACHE in options:
            folder = os.path.join(args.work, "cache")
            if name == "cache":
                shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder, exist_ok=True)
            command[command.index(CACHE)] = folder
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode == 2:  # wrong usage: lowbeam says in one line what it does not know
            return done.stdout.strip().splitlines()[-1]
        if done.returncode not in (0, 3) or not os.path.exists(out):
            sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}\nsaving_table.py: {name} ended with {done.returncode}")
    with open(out, newline="", encoding="utf-8") as file:
        letters = {row["id"]: row["answer"] for row in csv.DictReader(file)}
    with contextlib.closing(sqlite3.connect(out[:-4] + ".db")) as journal:
        return letters, journal.execute("SELECT count(*) FROM answer WHERE fallback").fetchone()[0]


def main():
    args = parse()
    os.makedirs(args.work, exist_ok=True)
    with open(os.path.join(args.data, "questions.json"), encoding="utf-8") as file:
        data = json.load(file)["data"]
    base, wanted = {}, set((args.only or ",".join(row[0] for row in ROWS)).split(","))
    print("| run | weights | options | questions | right | letters as the default's | no letter said |\n"
          "| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    n = min(args.questions, len(data))
    for name, weights, options, with_detector in ROWS:
        if name not in wanted and name != "default" or not with_detector and not args.detector:
            continue
        shown = " ".join(options).replace(CACHE, "DIR") + ("" if with_detector or not args.detector else " (no detector)")
        found = run(args, name, weights, options, with_detector, n)
        if isinstance(found, str):
            print(f"| {name} | {weights} | {shown.strip()} | | not run: {found} | | |", flush=True)
            continue
        letters, fallbacks = found
        if name == "default":
            base = letters
        asked, lost = data[:n], defaultdict(int)
        right = sum(letters[q["id"]] == q["answer"][0] for q in asked)
        same = sum(letters[q["id"]] == base[q["id"]] for q in asked)
        for q in asked:
            lost[q["kind"]] += letters[q["id"]] != base[q["id"]]
        others = ", ".join(f"{kind} {count}" for kind, count in sorted(lost.items()) if count)
        print(f"| {name} | {weights} | {shown.strip()} | {n} | {100 * right / n:.1f} % | {same} of {n}"
              f"{' (others: ' + others + ')' if others else ''} | {fallbacks} |", flush=True)


if __name__ == "__main__":
    main()
