#!/usr/bin/env python3
"""The CSV that lowbeam writes, read back by Python's csv module: every field equal, byte for byte, in index order.

    check_csv.py --build BUILD_DIR [--cases N] [--seed S]

Texts are random, rich in commas, quotes, blanks and line ends. Where pandas is installed it reads the file too. The limit
is 0 differing fields.
"""
import argparse
import csv
import os
import random
import struct
import subprocess
import sys
import tempfile

COLUMNS = ["id", "answer", "raw_response", "prompt"]
ALPHABET = list(',,""\r\n\r\n \t;\'=|ab0ậĐ') + ["\r\n", '""', "\U0001F6A6", "ệ", "\\", "NA"]


def random_text(rng):
    return "".join(rng.choice(ALPHABET) for _ in range(rng.choice([0, 1, 1, 2, 3, 8, 30, 500])))


def packed(text):
    return struct.pack("<I", len(text.encode())) + text.encode()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, help="build folder (tests/dump_csv in it)")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)

    rows = {}
    records = b""
    for _ in range(options.cases):
        index, letter = rng.randrange(2 * options.cases), rng.randrange(8)
        row = [random_text(rng), "ABCDEFGH"[letter], random_text(rng), random_text(rng)]
        rows[index] = row  # a second record with the same index replaces the first
        records += struct.pack("<ii", index, letter) + packed(row[0]) + packed(row[2]) + packed(row[3])
    expected = [rows[index] for index in sorted(rows)]

    n_fields = n_wrong = 0
    program = os.path.join(options.build, "tests", "dump_csv")
    for columns in (None, "id,answer", "prompt", "raw_response,id"):
        names = columns.split(",") if columns else COLUMNS
        with tempfile.TemporaryDirectory(prefix="lowbeam-csv-") as folder:
            path = os.path.join(folder, "odd, \"name\"?#%20.csv")
            command = [program, os.path.join(folder, "run.db"), path] + ([columns] if columns else [])
            subprocess.run(command, input=records, check=True)
            left = sorted(os.listdir(folder))
            if left != sorted(["run.db", os.path.basename(path)]):
                sys.exit(f"files left beside the CSV: {left}")
            with open(path, newline="", encoding="utf-8") as file:
                read = list(csv.reader(file, strict=True))
            with open(path, "rb") as file:
                if not file.read().startswith(",".join(names).encode() + b"\r\n"):
                    sys.exit("the header is not " + ",".join(names))
            wanted = [names] + [[row[COLUMNS.index(name)] for name in names] for row in expected]
            if len(read) != len(wanted):
                sys.exit(f"{len(read)} rows read, {len(wanted)} written")
            for got, want in zip(read, wanted):
                n_fields += len(want)
                if got != want:
                    n_wrong += 1
                    if n_wrong < 10:
                        print(f"read {got!r}, written {want!r}")
            try:
                import pandas
            except ImportError:
                continue
            table = pandas.read_csv(path, keep_default_na=False, dtype=str)
            if table.values.tolist() != wanted[1:]:
                n_wrong += 1
                print(f"pandas reads columns {columns} otherwise")
    print(f"check_csv: {n_fields} fields of {len(expected)} rows read back, {n_wrong} differ")
    return n_wrong > 0


if __name__ == "__main__":
    sys.exit(main())
