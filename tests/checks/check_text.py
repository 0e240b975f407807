#!/usr/bin/env python3
"""lowbeam's text functions against Python's: decode(errors="replace") and strip(), unicodedata.normalize("NFC"), and the
letter rules against another way of writing them down.

    check_text.py --build BUILD_DIR [--cases N] [--seed S]

Bytes are random, and damaged UTF-8. For the letters, texts over a small alphabet, so that the rules meet each other. NFC
is also compared with the tokenizers package where it is installed (Qwen2's own normaliser). Characters younger than
Unicode 3.2 are left out of NFC and of the letters: the libraries know different versions. The limit is 0 differences.
"""
import argparse
import os
import random
import struct
import subprocess
import sys
import unicodedata

CLEAN, NFC = 0, 1
LETTER_ALPHABET = list("AaBbCcDdEeHhIi") + list(".):,( \n_1*-") + list("ĐÂấế中жᾼ٣²Ⅳ…。️") + [
    "\u0301", "\u0302", "\u0323", "\u093e", "\u20e3", "\u200b", "\u00a0", "\ufffd", "\U0001F6A6", "là", "án"
]
KNOWN = [c for c in map(chr, range(0x30000)) if unicodedata.ucd_3_2_0.category(c) not in ("Cn", "Cs") and ord(c)]
WHITE = [c for c in KNOWN if c.isspace()]
MARKS = [c for c in KNOWN if unicodedata.combining(c)]
COMPOSED = [c for c in KNOWN if unicodedata.decomposition(c)]


class Lowbeam:
    def __init__(self, build):
        program = os.path.join(build, "tests", "dump_text")
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, operation, data):
        self.process.stdin.write(struct.pack("<II", operation, len(data)) + data)
        self.process.stdin.flush()
        length, = struct.unpack("<I", self.process.stdout.read(4))
        return None if length == 0xFFFFFFFF else self.process.stdout.read(length)


def random_bytes(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(12)))
    if kind == 1:  # the bytes at the borders of UTF-8's rules
        borders = [0, 0x20, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC,
                   0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
        return bytes(rng.choice(borders) for _ in range(rng.randrange(10)))
    text = "".join(rng.choice([rng.choice(KNOWN), rng.choice(WHITE), rng.choice(WHITE), "A", "ộ"])
                   for _ in range(rng.randrange(12)))
    data = bytearray(text.encode())
    if kind == 3 and data:
        del data[rng.randrange(len(data))]
    return bytes(data)


def reference_letter(text, n_choices):
    """The rules over a list of (letter or sign, is it a word character), marks merged into what they stand on."""
    units = []
    for c in text:
        if unicodedata.category(c)[0] == "M" and units:
            units[-1] = ("", units[-1][1])
        else:
            units.append((c, c.isalnum() or c == "_"))
    letters = "ABCDEFGH"[:n_choices]

    def lone(i):
        return (units[i][0] and units[i][0].upper() in letters and units[i][0].isascii()
                and not (i + 1 < len(units) and units[i + 1][1]) and not (i and units[i - 1][1]))

    if units and lone(0):
        return letters.index(units[0][0].upper())
    for sign in ".):":
        for i in range(len(units) - 1):
            if lone(i) and units[i + 1][0] == sign:
                return letters.index(units[i][0].upper())
    for i in range(len(units)):
        if lone(i) and units[i][0].isupper():
            return letters.index(units[i][0])
    return -1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, help="build folder (tests/dump_text in it)")
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    lowbeam = Lowbeam(options.build)
    try:
        from tokenizers import normalizers
        rust_nfc = normalizers.NFC().normalize_str
    except ImportError:
        rust_nfc = None
    n_of, wrong_of = {}, {}

    def compare(name, given, got, want):
        n_of[name] = n_of.get(name, 0) + 1
        if got != want:
            wrong_of[name] = wrong_of.get(name, 0) + 1
            if wrong_of[name] < 10:
                print(f"{name} of {given!r}: {got!r}, {want!r} expected")

    for _ in range(options.cases):
        data = random_bytes(rng)
        # A C string cannot hold NUL, so lowbeam makes U+FFFD of it.
        want = data.decode(errors="replace").strip().replace("\0", "\ufffd")
        compare("clean", data, lowbeam.run(CLEAN, data).decode(), want)

        text = "".join(rng.choice(rng.choice([KNOWN, MARKS, COMPOSED, ["a", "E", "ộ"]])) for _ in range(rng.randrange(9)))
        got = lowbeam.run(NFC, text.encode()).decode()
        compare("nfc", text, got, unicodedata.normalize("NFC", text))
        if rust_nfc:
            compare("nfc (tokenizers)", text, got, rust_nfc(text))

        text = "".join(rng.choice(LETTER_ALPHABET) for _ in range(rng.randrange(8)))
        n_choices = rng.randrange(2, 9)
        got, = struct.unpack("b", lowbeam.run(n_choices, text.encode()))
        compare("letter", (n_choices, text), got, reference_letter(text, n_choices))
    found = ", ".join(f"{name} {wrong_of.get(name, 0)} of {n}" for name, n in n_of.items())
    print(f"check_text: differences: {found}" + ("" if rust_nfc else "; no tokenizers package to compare NFC with"))
    return bool(wrong_of)


if __name__ == "__main__":
    sys.exit(main())
