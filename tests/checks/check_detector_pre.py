#!/usr/bin/env python3
"""What stands around the detector's network, beside transformers: tokens, label texts, pictures, detections.

    check_detector_pre.py --build BUILD_DIR [--llama-cpp DIR] [--cases N] [--seed S]

- Tokens against BertTokenizer (tokenizers' Rust code) with BERT's real vocabulary: every character that Unicode has,
  inside a word and alone, and random texts. Limit 0. Characters that younger Unicode versions added are cleaned by one
  library and kept by the other; they and only they are left out (category Cn or Co in either).
- Label lists against GroundingDinoProcessor's joined text. Limit 0.
- Pictures against GroundingDinoImageProcessorPil: sizes equal, values equal bit for bit (both multiply in f64, round to
  f32, subtract and divide there). Limit 0.
- Detections against post_process_grounded_object_detection on random logits: the same queries, in the same order, the
  same texts; boxes bit for bit (the same four operations in f32), scores within 1.2e-7, two units of f32 below 1, since
  PyTorch's sigmoid is not rounded exactly. Logits within 1e-5 of a threshold are moved away from it before.
"""
import argparse
import os
import random
import struct
import subprocess
import sys
import tempfile
import types
import unicodedata

import numpy as np

ENCODE, LABELS, SIZES, PICTURES, DETECTIONS, DECODE = range(6)
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))

import gguf_file  # noqa: E402  (tools/ must be on the path first)

DEFAULT = ["traffic sign", "traffic light", "traffic signal", "lane arrow", "road marking", "lane marking", "vehicle",
           "car", "truck", "motorcycle", "bicycle", "pedestrian", "stop sign", "speed limit sign"]


class Refused(Exception):
    pass


class Dump:
    """dump_pre, asked over pipes."""

    def __init__(self, program, vocabulary):
        self.process = subprocess.Popen([program, vocabulary], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(self, operation, n, data=b""):
        self.process.stdin.write(struct.pack("<ii", operation, n) + data)
        self.process.stdin.flush()
        status, n = self.numbers(2)
        if status:
            raise Refused(self.read(n).decode())
        return n

    def read(self, n):
        data = self.process.stdout.read(n)
        if len(data) != n:
            raise SystemExit("FAIL dump_pre ended early")
        return data

    def numbers(self, n, kind="i"):
        return list(struct.unpack(f"<{n}{kind}", self.read(4 * n)))

    def text(self):
        return self.read(self.numbers(1)[0]).decode("utf-8")

    def encode(self, text):
        data = text.encode("utf-8")
        return self.numbers(self.send(ENCODE, 1, struct.pack("<i", len(data)) + data))

    def labels(self, labels):
        data = b"".join(struct.pack("<i", len(one.encode())) + one.encode() for one in labels)
        ids = self.numbers(self.send(LABELS, len(labels), data))
        spans = np.array(self.numbers(2 * len(labels))).reshape(-1, 2)
        return ids, spans, self.text()

    def sizes(self, sizes):
        n = self.send(SIZES, len(sizes), np.array(sizes, np.int32).tobytes())
        return np.array(self.numbers(2 * n)).reshape(-1, 2)

    def pictures(self, pictures):
        data = b"".join(struct.pack("<ii", p.shape[1], p.shape[0]) + p.tobytes() for p in pictures)
        n = self.send(PICTURES, len(pictures), data)
        width, height = self.numbers(2)
        sizes = np.array(self.numbers(2 * n)).reshape(-1, 2)
        pixels = np.frombuffer(self.read(n * 3 * width * height * 4), np.float32)
        return sizes, pixels.reshape(n, 3, height, width)

    def detections(self, logits, boxes, width, height, box_threshold, text_threshold):
        n = self.send(DETECTIONS, len(logits), struct.pack("<iiff", width, height, box_threshold, text_threshold) +
                      logits.tobytes() + boxes.tobytes())
        out = []
        for _ in range(n):
            query, label = self.numbers(2)
            values = self.numbers(6, "f")
            out.append((query, label, values[:4], values[4], values[5], self.text()))
        return out

    def decode(self, ids):
        self.send(DECODE, len(ids), np.array(ids, np.int32).tobytes())
        return self.text()


class Tally:
    def __init__(self):
        self.bad = self.n = 0

    def check(self, what, good, detail=""):
        self.n += 1
        if not good:
            self.bad += 1
            if self.bad <= 40:
                print(f"FAIL {what}: {detail}")

    def line(self, what, n, different):
        print(f"{what}: {n} compared, {different} differ (limit 0)", flush=True)


def vocabulary_text(path):
    """vocab.txt from the tokens of a GGUF vocabulary, and the list."""
    tokens = gguf_file.read_pairs(path)["tokenizer.ggml.tokens"][1][1]
    plain = [t[1:] if t.startswith("\u2581") else t if t[:1] == "[" and t[-1:] == "]" and len(t) > 1 else "##" + t
             for t in tokens]
    return "".join(t + "\n" for t in plain), plain


def check_characters(dump, tally, tokenizer):
    """Every character inside a word, and doubled before one; many to a text, apart by what the vocabulary has."""
    skipped, characters = 0, []
    for code in list(range(1, 0xD800)) + list(range(0xE000, 0x110000)):
        if unicodedata.category(chr(code)) in ("Cn", "Co"):
            skipped += 1
        else:
            characters.append(chr(code))
    different = []
    for start in range(0, len(characters), 64):
        part = characters[start:start + 64]
        text = " , ".join(f"a{c}b {c}{c}e" for c in part)
        if dump.encode(text) != tokenizer.encode(text, add_special_tokens=False):
            different += [c for c in part
                          if dump.encode(f"a{c}b {c}{c}e") != tokenizer.encode(f"a{c}b {c}{c}e", add_special_tokens=False)]
    for c in different:
        tally.check("character", False, f"U+{ord(c):04X} {unicodedata.category(c)} {unicodedata.name(c, '')}")
    tally.check("characters", len(characters) > 100000)
    tally.line(f"tokens of single characters ({skipped} private or unassigned ones left out)", len(characters),
               len(different))


def random_text(rand, plain):
    parts = []
    for _ in range(rand.randint(1, 12)):
        kind = rand.random()
        if kind < 0.4:
            parts.append(rand.choice(plain).replace("##", ""))
        elif kind < 0.6:
            parts.append("".join(chr(rand.choice((rand.randint(33, 0x24F), rand.randint(0x300, 0x36F),
                                                  rand.randint(0x370, 0x1FFF)))) for _ in range(rand.randint(1, 9))))
        elif kind < 0.75:
            parts.append("".join(rand.choice("biển báo đường xe MÁY ô tô Đèn ĐỎ ÄÖÜß ﬁ Ⅷ İıſ ΣΑΣ ١٢٣ 信号 한국 ".split(" "))))
        elif kind < 0.9:
            parts.append(rand.choice(["don't", "x" * rand.randint(98, 103), "stop-sign", "3.5t", "50km/h", "a,b;c", "\t",
                                      "\u200b", "\ufeff", "\u00ad", "e\u0301", "\u1100\u1161", "🚗🚦", "[mask]", "##ing"]))
        else:
            parts.append("".join(rand.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rand.randint(1, 20))))
    return rand.choice(("", " ", "\n")).join(parts) if rand.random() < 0.3 else " ".join(parts)


def assigned(text):
    return all(unicodedata.category(c) not in ("Cn", "Co", "Cs") for c in text)


def check_texts(dump, tally, tokenizer, rand, plain, n):
    different = done = 0
    while done < n:
        text = random_text(rand, plain)
        if not assigned(text) or any(s in text for s in ("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]")) or "\0" in text:
            continue
        done += 1
        got, wanted = dump.encode(text), tokenizer.encode(text, add_special_tokens=False)
        different += got != wanted
        tally.check("text", got == wanted, f"{text!r}: {got} {wanted}")
    tally.line("tokens of random texts", n, different)
    different = 0
    for _ in range(n):
        ids = [rand.randrange(len(plain)) for _ in range(rand.randint(0, 8))]
        if rand.random() < 0.5:  # where the clean-up has something to do
            ids = [rand.choice((rand.randrange(999, 1040), rand.randrange(len(plain)), 102)) for _ in ids]
        got, wanted = dump.decode(ids), tokenizer.batch_decode([ids])[0]
        different += got != wanted
        tally.check("decoded", got == wanted, f"{ids}: {got!r} {wanted!r}")
    tally.line("texts of random tokens", n, different)


def check_labels(dump, tally, processor, rand, plain, n):
    lists = [DEFAULT, ["Traffic Sign", " car ", "đèn giao thông", "biển báo", "ΣΑΣ Σ", "İstanbul?", "ﬁre-engine!", "50 km/h"]]
    while len(lists) < n:
        one = [random_text(rand, plain).replace(".", "") for _ in range(rand.randint(1, 5))]
        # a character of Cased that is no letter changes Python's final sigma alone
        lists.append([t for t in one if assigned(t) and t.strip() and "\0" not in t] or ["car"])
    different = refused = 0
    for labels in lists:
        wanted = processor.tokenizer(processor._preprocess_input_text(labels))["input_ids"]
        try:
            got, spans, unknown = dump.labels(labels)
        except Refused as refusal:
            # Only what says why: nothing left of a label, or too many tokens.
            empty = any(not processor.tokenizer.encode(t, add_special_tokens=False) for t in labels)
            refused += 1
            tally.check("refused", empty and "nothing is left" in str(refusal) or
                        len(wanted) > 256 and "256 tokens" in str(refusal), f"{labels}: {refusal}")
            continue
        good = got == wanted
        for label, (first, end) in zip(labels, spans):
            good = good and got[first:end] == processor.tokenizer.encode(label.strip().lower(), add_special_tokens=False)
            good = good and got[end] == 1012
        good = good and (100 in wanted) == bool(unknown)
        different += not good
        tally.check("labels", good, f"{labels}: {got} {wanted} unknown {unknown!r}")
    tally.line(f"label lists and their spans ({refused} refused, rightly)", len(lists), different)


def check_sizes(dump, tally, rand, n):
    from transformers.image_transforms import get_size_with_aspect_ratio
    sizes = [(800, 1333), (1333, 800), (800, 800), (1920, 1080), (1, 1), (1333, 1), (1, 10000), (750, 1333), (799, 1332),
             (1600, 2666), (3, 5), (801, 1334), (800, 1334), (800, 1332)]
    sizes += [(rand.randint(1, 4000), rand.randint(1, 4000)) for _ in range(n)]
    sizes += [(rand.randint(1, 40), rand.randint(1, 4000)) for _ in range(n)]
    # where the short side is half-way between two whole numbers: 1333 * short / long = k + 1/2
    for _ in range(n):
        k = rand.randint(100, 799)
        sizes.append(rand.choice(((2666, 2 * k + 1), (2 * k + 1, 2666), (1333 * 4, 4 * k + 2), (4 * k + 2, 1333 * 4))))
    got, different = dump.sizes(sizes), 0
    for (width, height), (w, h) in zip(sizes, got):
        oh, ow = get_size_with_aspect_ratio((height, width), 800, 1333)
        good = (w, h) == (ow, oh) or (min(oh, ow) < 1 and (w, h) == (0, 0))
        different += not good
        tally.check("size", good, f"{width}x{height}: {w}x{h}, transformers {ow}x{oh}")
    tally.line("sizes", len(sizes), different)


def check_pictures(dump, tally, image_processor, rng):
    from PIL import Image
    batches = [[(1333, 750)], [(1920, 1080), (640, 480)], [(480, 640), (1280, 720), (333, 333)], [(800, 800)], [(97, 1203)],
               [(1333, 800)], [(2000, 61), (64, 48)]]
    different = 0
    for sizes in batches:
        pictures = [rng.integers(0, 256, (h, w, 3), np.uint8) for w, h in sizes]
        inputs = image_processor([Image.fromarray(p) for p in pictures], return_tensors="np")
        got_sizes, pixels = dump.pictures(pictures)
        wanted, mask = inputs["pixel_values"], inputs["pixel_mask"]
        good = pixels.shape == wanted.shape
        n = int((pixels != wanted).sum()) if good else -1
        for i, (w, h) in enumerate(got_sizes):
            own = np.zeros(mask.shape[1:], np.int64)
            own[:h, :w] = 1
            good = good and np.array_equal(own, mask[i])
        different += not good or n != 0
        tally.check("picture", good and n == 0, f"{sizes}: {pixels.shape} {wanted.shape}, {n} values differ")
    tally.line("batches of pictures, values and masks", len(batches), different)


def check_detections(dump, tally, processor, rng, rand, plain, n):
    import torch
    different = found = 0
    largest = 0.0
    for case in range(n):
        labels = DEFAULT if case % 2 == 0 else [t.replace("##", "") for t in rand.sample(plain[1000:], rand.randint(1, 60))]
        labels = [t for t in labels if "." not in t and t.strip()] or ["car"]
        if case == 1:
            labels = ["sign"] * 127  # 1 + 2 * 127 + 1 tokens: all 256 that the model reads
        ids, spans, _ = dump.labels(labels)
        queries = 900 if case < 4 else 60
        logits = rng.normal(-3, 2, (queries, len(ids))).astype(np.float32)
        width, height = rand.randint(1, 4000), rand.randint(1, 4000)
        box_threshold, text_threshold = rand.choice(((0.3, 0.25), (0.25, 0.25), (0.9, 0.5), (0.3, 0.95)))
        for t in (box_threshold, text_threshold):
            edge = np.log(t / (1 - t))
            logits[np.abs(logits - edge) < 1e-5] -= 1e-3
        boxes = rng.uniform(0, 1, (queries, 4)).astype(np.float32)
        padded = np.full((1, queries, 256), -np.inf, np.float32)
        padded[0, :, :len(ids)] = logits
        outputs = types.SimpleNamespace(logits=torch.from_numpy(padded), pred_boxes=torch.from_numpy(boxes[None]),
                                        input_ids=None)
        wanted = processor.post_process_grounded_object_detection(
            outputs, torch.tensor([ids]), threshold=box_threshold, text_threshold=text_threshold,
            target_sizes=[(height, width)])[0]
        got = dump.detections(logits, boxes, width, height, box_threshold, text_threshold)
        probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
        good = len(got) == len(wanted["scores"])
        for d, score, box, text in zip(got, wanted["scores"].tolist(), wanted["boxes"].numpy(), wanted["text_labels"]):
            query, label, own_box, own_score, label_score, own_text = d
            largest = max(largest, abs(score - own_score))
            best = [probability[query, first:end].max() for first, end in spans]
            good = good and abs(score - own_score) <= 1.2e-7 and np.array_equal(np.float32(own_box), box)
            good = good and own_text == text and abs(best[label] - max(best)) < 1e-7 and abs(label_score - max(best)) < 1e-6
        found += len(got)
        different += not good
        tally.check("detections", good, f"case {case}: {len(got)}, transformers {len(wanted['scores'])}")
    print(f"detections: {n} frames with {found} boxes, {different} frames differ (limit 0), largest score error "
          f"{largest:.1e} (limit 1.2e-07)", flush=True)
    tally.check("some boxes", found > n)


def program(build):
    for path in (os.path.join(build, "tests", "dump_pre"), os.path.join(build, "dump_pre")):
        if os.path.exists(path):
            return path
    raise SystemExit(f"FAIL {build}: no dump_pre; build first")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", required=True, help="build folder (tests/dump_pre in it)")
    parser.add_argument("--llama-cpp", default=os.environ.get("LOWBEAM_LLAMA_SRC"), help="llama.cpp's sources")
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    vocabulary = os.path.join(options.llama_cpp or "", "models", "ggml-vocab-bert-bge.gguf")
    if not os.path.exists(vocabulary):
        print(f"{vocabulary} is not there: BERT's vocabulary is taken from llama.cpp's sources (--llama-cpp)")
        sys.exit(77)
    import transformers
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
    from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor
    rand, rng, tally = random.Random(options.seed), np.random.default_rng(options.seed), Tally()
    text, plain = vocabulary_text(vocabulary)
    with tempfile.TemporaryDirectory(prefix="lowbeam-check-") as folder:
        path = os.path.join(folder, "vocab.txt")
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        tokenizer = transformers.BertTokenizer(vocab=path)
    image_processor = GroundingDinoImageProcessorPil()
    processor = GroundingDinoProcessor(image_processor, tokenizer)
    dump = Dump(program(options.build), vocabulary)
    check_characters(dump, tally, tokenizer)
    check_texts(dump, tally, tokenizer, rand, plain, 10 * options.cases)
    check_labels(dump, tally, processor, rand, plain, options.cases)
    check_sizes(dump, tally, rand, options.cases)
    check_pictures(dump, tally, image_processor, rng)
    check_detections(dump, tally, processor, rng, rand, plain, 40)
    dump.process.stdin.close()
    ended = dump.process.wait()
    print(f"transformers {transformers.__version__}: {tally.n - tally.bad} of {tally.n} comparisons hold, dump_pre ended "
          f"with {ended}")
    sys.exit(1 if tally.bad or ended else 0)


if __name__ == "__main__":
    main()
