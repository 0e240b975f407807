#!/usr/bin/env python3
"""`lowbeam answer --detector` from a video's frames to the tiles and the prompt, beside transformers and Pillow.

    check_sight.py --lowbeam PATH --models DIR --llama-cpp DIR [--work DIR]

A small random detector with BERT's vocabulary (tools/make_detector_models.py), the same weights in transformers, videos of
noise and shapes with one size each. For each frame: transformers' boxes (Pillow image processor, post-processing), those
without area left out, the first five; lowbeam's are the same ones, in the same order, within 0.1 pixel per 1000 and 1e-4 of
the score. Cropped and resized by Pillow they are lowbeam's tiles byte for byte, and count and labels stand in the prompt. A
box with a side within 1e-3 of a whole pixel may be cut one pixel off: its tile is compared with the crop of lowbeam's own
box alone, and counted. Embeddings of all tiles as transformers' encoder gives them, and the same logits without reuse.
"""
import json
import os
import re
import subprocess
import sys

import numpy as np

from common import Check, question, reference, relative, write_video

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools")
LABELS = ["Traffic Sign", "traffic light", "car", "truck", "đèn giao thông", "person"]
VIDEOS = {"wide": (320, 180), "upright": (150, 260)}
FRAMES, KEPT, TEXT_THRESHOLD = 3, 5, 0.25


class Reference:
    def __init__(self, folder):
        import torch
        import transformers
        from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
        from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor
        self.torch = torch
        self.network = transformers.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
        self.processor = GroundingDinoProcessor(GroundingDinoImageProcessorPil.from_pretrained(folder),
                                                transformers.BertTokenizer(vocab=os.path.join(folder, "vocab.txt")))

    def detect(self, picture, threshold):
        """[(box, score, text)] of the first boxes with area, and how many of those before had none."""
        inputs = self.processor(images=picture, text=LABELS, return_tensors="pt")
        with self.torch.no_grad():
            outputs = self.network(**inputs)
        found = self.processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=threshold, text_threshold=TEXT_THRESHOLD,
            target_sizes=[(picture.height, picture.width)])[0]
        rows = list(zip(found["boxes"].tolist(), found["scores"].tolist(), found["text_labels"]))
        return [row for row in rows if int(row[0][2]) > int(row[0][0]) and int(row[0][3]) > int(row[0][1])][:KEPT]


def cut(picture, box, size):
    return np.asarray(picture.crop(tuple(int(v) for v in box)).resize((size, size)))


def paragraph(prompt):
    """{frame from 1: text} of the lines between the heading and the frames."""
    return {int(i): text for i, text in re.findall(r"^Frame(\d+): (\d+ \(.*\))$", prompt, re.M)}


def compare_frame(check, what, ours, theirs, size):
    """The boxes that both have. Those that are missing on one side must have a score at the threshold: none here."""
    if not check.expect(f"{what}: boxes", len(ours) == len(theirs), f"{len(ours)}, transformers {len(theirs)}"):
        return False
    check.verdict(f"{what}: scores", max((abs(o["score"] - t[1]) for o, t in zip(ours, theirs)), default=0.0), 1e-4)
    off = max((max(abs(p - q) for p, q in zip(o["box"], t[0])) for o, t in zip(ours, theirs)), default=0.0)
    check.verdict(f"{what}: coordinates, as shares of the longer side", off / max(size), 1e-4)
    return check.expect(f"{what}: texts", [o["raw_label"] for o in ours] == [t[2] for t in theirs])


def compare_video(check, what, run, network, video, threshold, questions, size):
    from PIL import Image
    frames = [Image.fromarray(frame) for frame in run.array(video, "frames")]
    told = json.loads(run.text(video, "detections.json"))["frames"]
    tiles, per_frame = run.array(video, "tiles"), run.array(video, "tiles_per_frame").tolist()
    expected_lines, at, n_near, n_crops, n_equal = {}, 0, 0, 0, 0
    own = 1
    check.expect(f"{what}: frame indices", [f["index"] for f in told] == run.array(video, "frame_index").tolist())
    for i, (frame, description) in enumerate(zip(frames, told)):
        ours, theirs = description["detections"], network.detect(frame, threshold)
        compare_frame(check, f"{what}, frame {i + 1}", ours, theirs, frame.size)
        check.expect(f"{what}, frame {i + 1}: its own tile", np.array_equal(
            tiles[at], np.asarray(frame.resize((size, size)))))
        check.expect(f"{what}, frame {i + 1}: tiles", per_frame[i] == own + len(ours), f"{per_frame[i]}")
        for k, (o, t) in enumerate(zip(ours, theirs)):
            near = min(abs(v - round(v)) for v in t[0]) < 1e-3
            n_near += near
            n_crops += 1
            n_equal += np.array_equal(tiles[at + own + k], cut(frame, o["box"] if near else t[0], size))
        at += per_frame[i]
        if theirs:
            texts = [text or o["label"] for (_, _, text), o in zip(theirs, ours)]
            expected_lines[i + 1] = f"{len(theirs)} ({', '.join(texts)})"
    check.expect(f"{what}: crops as Pillow cuts transformers' boxes", n_equal == n_crops > 0,
                 f"{n_equal} of {n_crops}, {n_near} of them too near a whole pixel to tell")
    check.expect(f"{what}: nothing behind them", at == len(tiles))
    for entry in questions:
        if entry["video_path"] == video:
            check.expect(f"{what}: the prompt of {entry['id']}",
                         paragraph(run.row[entry["id"]]["prompt"]) == expected_lines)
    return n_crops


def main():
    check = Check(__doc__)
    vocabulary = os.path.join(check.args.llama_cpp or "", "models", "ggml-vocab-bert-bge.gguf")
    if not os.path.exists(vocabulary):
        print(f"{vocabulary} is not there: BERT's vocabulary is taken from llama.cpp's sources (--llama-cpp)")
        sys.exit(77)
    subprocess.run([sys.executable, os.path.join(TOOLS, "make_detector_models.py"), os.path.join(check.work, "detector"),
                    "--kind", "a", "--bert-vocab", vocabulary], check=True)
    hf, detector = os.path.join(check.work, "detector", "a", "hf"), os.path.join(check.work, "detector.gguf")
    subprocess.run([check.args.lowbeam, "convert", hf, "-o", detector, "--type", "f32"], check=True)
    labels = os.path.join(check.work, "labels.txt")
    with open(labels, "w", encoding="utf-8") as file:
        file.write("\n".join(LABELS) + "\n")
    for seed, (name, (width, height)) in enumerate(VIDEOS.items()):
        write_video(os.path.join(check.work, "videos", name), FRAMES, width, height, seed)
    questions = [question(f"{name}-{i}", f"Câu hỏi {i}?", name) for name in VIDEOS for i in range(2)]
    network, encoder = Reference(hf), reference.load(check.model("tiny224", "hf"))
    size = encoder.config.vision_config.image_size[0]
    options = ("--exact", "--detector", detector, "--labels", labels)
    for threshold in ("0", "0.3"):
        what = f"threshold {threshold}"
        run = check.answer(f"sight-{threshold}", questions, *options, "--detection-threshold", threshold, frames=FRAMES)
        for video in VIDEOS:
            n = compare_video(check, f"{what}, {video}", run, network, video, float(threshold), questions, size)
            if threshold == "0":
                check.expect(f"{what}, {video}: five crops a frame", n == KEPT * FRAMES, f"{n} of {FRAMES} frames")
            check.verdict(f"{what}, {video}: embeddings", relative(
                run.array(video, "embeddings"), reference.embed(encoder, run.array(video, "tiles"))), 1e-4)
        whole = check.answer(f"sight-{threshold}-whole", questions, *options, "--no-reuse", "--detection-threshold",
                             threshold, frames=FRAMES)
        for entry in questions:
            check.verdict(f"{what}, {entry['id']}: logits with and without reuse", relative(
                run.array(entry["id"], "logits"), whole.array(entry["id"], "logits")), 1e-4)
        check.expect(f"{what}: letters with and without reuse",
                     [row["answer"] for row in run.rows] == [row["answer"] for row in whole.rows])
    check.exit()


if __name__ == "__main__":
    main()
