#!/usr/bin/env python3
"""Writes the first inputs of the fuzzers below fuzz/corpus, from what the tests and samples hold already; what the
fuzzers found later lies beside them. Standard library alone."""
import json
import os
import struct

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def write(fuzzer, name, data):
    folder = os.path.join(TOP, "fuzz", "corpus", fuzzer)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "seed_" + name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def read(*names):
    with open(os.path.join(TOP, *names), "rb") as file:
        return file.read()


def questions():
    data = json.loads(read("samples", "questions.json"))
    few = {"__count__": 3, "data": data["data"][:3]}
    write("questions", "samples", json.dumps(few, ensure_ascii=False))
    one = {"id": "q", "question": "Gì?", "choices": ["Có", "b) Không"], "video_path": "v/1.mp4"}
    write("questions", "one", json.dumps({"data": [one]}, ensure_ascii=False))
    write("questions", "faults", json.dumps({"__count__": 9, "data": [
        {**one, "answer": "B", "support_frames": 1.5}, one, {**one, "id": "r", "answer": "D", "support_frames": [-1]},
        {"id": 3, "question": "", "choices": ["A"], "video_path": None}, 7]}))
    write("questions", "twice", '{"data":[{"id":"a","id":"b"}],"data":[]}')
    write("questions", "escapes", '{"data":[{"id":"\\u0041\\ud83d\\ude00","question":"\\u0000","choices":[],"video_path":""}]}')


def prompts():
    rest = "\N{REPLACEMENT CHARACTER}".join(["Biển nào?", "A. Có", "Không"]).encode().replace("\N{REPLACEMENT CHARACTER}".encode(), b"\xff")
    for name in ("vi.txt", "en.txt"):
        write("prompt", name, read("prompts", name) + b"\xff" + rest)
    write("prompt", "short", b"{frames}\n{question}\n{choices}\xffq\xffa\xffb\xffA. c\xffd")
    write("prompt", "section", b"a {{b}}\r\n\r\nSeen:\r\n{detections}\r\n\r\n{question}{frames}{choices}\xff2 (car, car)\xff<image>\xffB) b")


def answers():
    for i, text in enumerate(("B", "b) vì có biển", "Câu trả lời là D.", "Đáp án: C", "Â. a\N{COMBINING CIRCUMFLEX ACCENT}.",
                              "  A\N{COMBINING CIRCUMFLEX ACCENT} (B) C:\u2029", "각 한 \u0f71\u0f72\u0f74 ﬁ")):
        write("answer", str(i), text)
    write("answer", "broken", b"\xff\xe2\x82 B\xed\xa0\x80\0C.")


def protocol():
    def reply(kind, width=4, height=4, slot=0, n_total=8, fps=30, status=5, time_s=0.5, wide=0, spread=0, text=b""):
        return bytes([kind]) + struct.pack("<6H4xdqB7s", width, height, slot, n_total, fps, status, time_s, wide,
                                           spread, text)
    header, done = reply(2), reply(4)
    frames = [reply(3, slot=i, time_s=i / 30) for i in range(16)]
    for n in (1, 2, 8, 16):
        write("protocol", f"good_{n}", bytes([n - 1, 15, 0]) + header + b"".join(frames[:n]) + done)
    write("protocol", "bounded", bytes([1, 15, 0x13]) + reply(1) + reply(2, n_total=900) + frames[0] + reply(1) + frames[1] + done)
    write("protocol", "error", bytes([3, 15, 0]) + reply(1) + reply(5, text=b"no\nway"))
    write("protocol", "raw", bytes([3, 15, 0]) + b"\x07\x40\x00" + bytes(64))
    write("protocol", "patched", bytes([0, 15, 0]) + reply(6) + b"\x7f\x08\x00")
    for spread in range(1, 9):
        write("protocol", f"wide_{spread}", bytes([0, 15, 0]) + reply(2, spread=spread, wide=-1) + frames[0] + done)


def pictures():
    kept = ("rgb.jpg", "cmyk.jpg", "exif.jpg", "grey.jpg", "progressive.jpg", "restart.jpg", "gamma.png", "grey_transparent.png",
            "palette_transparent.png", "type0_1bit_interlaced.png", "type0_16bit.png", "type2_8bit.png",
            "type3_4bit.png", "type4_8bit_interlaced.png", "type6_16bit.png")
    for name in kept:
        write("pictures", name, bytes([name.endswith(".jpg")]) + read("tests", "image", "files", name))
    two = [read("tests", "image", "files", name) for name in ("type2_8bit.png", "rgb.jpg")]
    write("pictures", "two", b"\x04" + b"\xff\x00\xfe".join(two))
    write("pictures", "three", b"\x40" + b"\xff\x00\xfe".join([two[0]] * 3))


questions()
prompts()
answers()
protocol()
pictures()
