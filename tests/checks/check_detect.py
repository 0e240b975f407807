#!/usr/bin/env python3
"""`lowbeam convert` and `lowbeam detect` from files to files, beside the same pictures through transformers.

    check_detect.py --lowbeam PATH [--llama-cpp DIR] [--work DIR]

A small random model with BERT's vocabulary (tools/make_detector_models.py), three pictures of a folder, one of them upright:
boxes within 0.1 pixel per 1000, scores within 1e-4, the same raw labels in the same order (issue's limits; f32 on the
CPU gives 1e-6). A box whose score lies within 1e-4 of the threshold may be missing on one side. The COCO file is loaded
by pycocotools where that is installed, else only its fields are looked at; drawn pictures must differ from the input
along the boxes' sides.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(HERE, "..", "..", "tools")
LABELS = ["Traffic Sign", "traffic light", "car", "truck", "đèn giao thông", "person"]
THRESHOLD, TEXT_THRESHOLD = 0.3, 0.25
failed = []


def expect(what, good, note=""):
    print(("ok   " if good else "FAIL ") + what + (f": {note}" if note else ""), flush=True)
    if not good:
        failed.append(what)


def run(*command, status=0):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
    if done.returncode != status:
        print(done.stdout[-1000:], done.stderr[-2000:])
        raise SystemExit(f"FAIL {' '.join(command)}: ended with {done.returncode}, expected {status}")
    return done


def draw_pictures(folder):
    from PIL import Image
    rng = np.random.default_rng(5)
    os.makedirs(folder)
    pictures = {}
    for name, (width, height) in {"a.png": (320, 180), "b.png": (200, 310), "c.png": (640, 360)}.items():
        y, x = np.mgrid[0:height, 0:width]
        pixels = np.stack([255 * x / width, 255 * y / height, 127 + 120 * np.sin(x / 17) * np.cos(y / 11)], -1)
        pixels += rng.normal(0, 20, pixels.shape)
        for _ in range(6):
            w, h = rng.integers(20, 90, 2)
            left, top = rng.integers(0, width - w), rng.integers(0, height - h)
            pixels[top:top + h, left:left + w] = rng.integers(0, 256, 3)
        pictures[name] = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        pictures[name].save(os.path.join(folder, name))
    return pictures


def compare(name, got, wanted, size):
    scores, boxes, texts = wanted["scores"].tolist(), wanted["boxes"].tolist(), wanted["text_labels"]
    keep = [i for i, box in enumerate(boxes) if int(box[2]) > int(box[0]) and int(box[3]) > int(box[1])]
    theirs = [(scores[i], boxes[i], texts[i]) for i in keep if scores[i] > THRESHOLD + 1e-4]
    ours = [(d["score"], d["box"], d["raw_label"], d["label"]) for d in got["detections"]
            if d["score"] > THRESHOLD + 1e-4]
    score = max((abs(a[0] - b[0]) for a, b in zip(ours, theirs)), default=0)
    box = max((max(abs(p - q) for p, q in zip(a[1], b[1])) for a, b in zip(ours, theirs)), default=0)
    expect(f"{name}: boxes", len(ours) == len(theirs) > 0, f"{len(ours)}, transformers {len(theirs)}")
    expect(f"{name}: scores", score <= 1e-4, f"{score:.1e}, limit 1e-04")
    expect(f"{name}: coordinates", box <= 1e-4 * max(size), f"{box:.1e} pixels, limit {1e-4 * max(size):.1e}")
    expect(f"{name}: raw labels", [a[2] for a in ours] == [b[2] for b in theirs])
    expect(f"{name}: the caller's labels", all(a[3] in LABELS for a in ours))


def check_coco(path, frames):
    with open(path, encoding="utf-8") as file:
        coco = json.load(file)
    n = sum(len(f["detections"]) for f in frames)
    names = {c["id"]: c["name"] for c in coco["categories"]}
    expect("COCO: categories are the labels", list(names.values()) == LABELS)
    expect("COCO: one image a picture", [i["file_name"] for i in coco["images"]] == ["a.png", "b.png", "c.png"])
    expect("COCO: annotations", 0 < len(coco["annotations"]) <= n, f"{len(coco['annotations'])} of {n}")
    size = {i["id"]: (i["width"], i["height"]) for i in coco["images"]}
    expect("COCO: boxes inside their pictures", all(
        x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= size[a["image_id"]][0] + 1e-3 and
        y + h <= size[a["image_id"]][1] + 1e-3 for a in coco["annotations"] for x, y, w, h in [a["bbox"]]))
    try:
        from pycocotools.coco import COCO
    except ImportError:
        print("skipped: pycocotools is not installed")
        return
    expect("COCO: pycocotools loads it", len(COCO(path).getAnnIds()) == len(coco["annotations"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lowbeam", required=True)
    parser.add_argument("--llama-cpp", default=os.environ.get("LOWBEAM_LLAMA_SRC"))
    parser.add_argument("--work")
    options = parser.parse_args()
    vocabulary = os.path.join(options.llama_cpp or "", "models", "ggml-vocab-bert-bge.gguf")
    if not os.path.exists(vocabulary):
        print(f"{vocabulary} is not there: BERT's vocabulary is taken from llama.cpp's sources (--llama-cpp)")
        sys.exit(77)
    temporary = None if options.work else tempfile.TemporaryDirectory(prefix="lowbeam-check-")
    work = options.work or temporary.name
    run(sys.executable, os.path.join(TOOLS, "make_detector_models.py"), os.path.join(work, "models"), "--kind", "a",
        "--bert-vocab", vocabulary)
    hf, model = os.path.join(work, "models", "a", "hf"), os.path.join(work, "a.gguf")
    pictures = draw_pictures(os.path.join(work, "pictures"))
    labels = os.path.join(work, "labels.txt")
    with open(labels, "w", encoding="utf-8") as file:
        file.write("\n".join(LABELS) + "\n\n")
    run(options.lowbeam, "convert", hf, "-o", model, "--type", "f32")
    common = ["--detector", model, "--labels", labels, "--device", "cpu"]
    coco, drawn = os.path.join(work, "coco.json"), os.path.join(work, "drawn")
    done = run(options.lowbeam, "detect", os.path.join(work, "pictures"), *common, "--json", "--coco", coco, "--draw",
               drawn, "--batch", "1")
    frames = [json.loads(line) for line in done.stdout.splitlines()]

    import torch
    import transformers
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
    from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor
    network = transformers.GroundingDinoForObjectDetection.from_pretrained(hf).eval()
    processor = GroundingDinoProcessor(GroundingDinoImageProcessorPil.from_pretrained(hf),
                                       transformers.BertTokenizer(vocab=os.path.join(hf, "vocab.txt")))
    expect("a line a picture", [os.path.basename(f["file"]) for f in frames] == list(pictures))
    for frame, (name, picture) in zip(frames, pictures.items()):
        inputs = processor(images=picture, text=LABELS, return_tensors="pt")
        with torch.no_grad():
            outputs = network(**inputs)
        wanted = processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=THRESHOLD, text_threshold=TEXT_THRESHOLD,
            target_sizes=[(picture.height, picture.width)])[0]
        expect(f"{name}: size", (frame["width"], frame["height"]) == picture.size)
        compare(name, frame, wanted, picture.size)
    check_coco(coco, frames)
    from PIL import Image
    for name, picture in pictures.items():
        path = os.path.join(drawn, name + ".boxes.png")
        changed = os.path.exists(path) and (np.asarray(Image.open(path)) != np.asarray(picture)).any(-1).mean()
        expect(f"{name}: drawn", changed and 0.001 < changed < 0.9, f"{100 * (changed or 0):.1f} % of the pixels")
    one = run(options.lowbeam, "detect", os.path.join(work, "pictures", "b.png"), *common, "--json").stdout
    again = json.loads(one)
    expect("a picture alone and in a folder: the same boxes", again["detections"] == frames[1]["detections"])
    run(options.lowbeam, "detect", os.path.join(work, "no-such.png"), *common, status=1)
    run(options.lowbeam, "detect", labels, "--detector", labels, "--device", "cpu", status=1)
    with open(os.path.join(work, "pictures", "d.png"), "wb") as file:
        file.write(b"\x89PNG not one")
    run(options.lowbeam, "detect", os.path.join(work, "pictures"), *common, status=3)
    print(f"transformers {transformers.__version__}: {len(failed)} comparisons fail")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
