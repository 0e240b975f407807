#!/usr/bin/env python3
"""From a clip to a line of the CSV: lowbeam against the chain that it replaces, on samples/.

    check_e2e.py --lowbeam PATH --models DIR --llama-cpp DIR [--work DIR]

For each clip: frame indices by design.md's formula; frames as decord gives them (mean absolute difference at most 1,
99.9 % within 8 levels: another version of FFmpeg's scaler rounds otherwise); tiles as Pillow cuts them, bit for bit;
embeddings and text as transformers gives them from those tiles. Then the default mode in bf16, where letters must agree
wherever the margin is clear, and what must be refused: an encoder of the 6B kind, and two files that do not belong
together.
"""
import json
import os

import numpy as np

from common import HERE, Check, Letters, letter_margin, question, qwen2_vocab, reference, relative, write_video

SAMPLES = os.path.normpath(os.path.join(HERE, "..", "..", "samples"))
FRAMES = 4


def decord_frames(path, indices):
    """[n, h, w, 3] and the clip's number of frames, or None where decord is not installed."""
    try:
        import decord
    except ImportError:
        return None, None
    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    return reader.get_batch(indices).asnumpy(), len(reader)


def check_pixels(check, run, clip, max_tiles, size):
    indices, frames, tiles = (run.array(clip, name) for name in ("frame_index", "frames", "tiles"))
    theirs, count = decord_frames(os.path.join(SAMPLES, clip), indices.tolist())
    if theirs is None:
        print(f"skip {clip}, frames and their indices: decord is not installed")
    else:
        off = np.abs(frames.astype(int) - theirs)
        check.verdict(f"{clip}, mean difference of pixels to decord's", off.mean(), 1.0)
        check.verdict(f"{clip}, share of pixels more than 8 levels off", (off > 8).mean(), 1e-3)
        expected = reference.frame_indices(FRAMES, count)
        check.expect(f"{clip}, frame indices", indices.tolist() == expected, f"{indices.tolist()}")
    cut = [reference.cut(frame, max_tiles, size) for frame in frames]
    check.expect(f"{clip}, {len(tiles)} tiles as Pillow cuts them", np.array_equal(np.concatenate(cut), tiles))
    check.expect(f"{clip}, tiles a frame", run.array(clip, "tiles_per_frame").tolist() == [len(part) for part in cut])


def check_csv(check, what, run, data):
    check.expect(f"{what}, ids in the input's order", [row["id"] for row in run.rows] == [entry["id"] for entry in data])
    lines = run.stdout.strip().splitlines() + run.stderr.strip().splitlines()
    right = sum(run.row[entry["id"]]["answer"] == entry["answer"][0] for entry in data)
    line = f"Accuracy: {right}/{len(data)} ({100 * right / len(data):.1f} %)"
    check.expect(f"{what}, accuracy is told", any(text.strip() == line for text in lines), line)
    pictures = "".join(f"Frame{i + 1}: <image>\n" for i in range(FRAMES))
    check.expect(f"{what}, the prompt column", all(pictures in row["prompt"] and entry["question"] in row["prompt"]
                                                   for row, entry in zip(run.rows, data)))


def main():
    check = Check(__doc__)
    if not check.args.llama_cpp:
        raise SystemExit("check_e2e.py: --llama-cpp DIR or the variable LOWBEAM_LLAMA_SRC must name llama.cpp's sources")
    tokenizer = qwen2_vocab.tokenizer(qwen2_vocab.vocab_path(check.args.llama_cpp))
    with open(os.path.join(SAMPLES, "questions.json"), encoding="utf-8") as file:
        # The random model says A to D: with fewer choices that would be a fallback as often as an answer.
        data = [entry for entry in json.load(file)["data"] if len(entry["choices"]) == 4]
    model = reference.load(check.model("letters", "hf"))
    size = model.config.vision_config.image_size[0]
    clips = sorted({entry["video_path"] for entry in data})

    for max_tiles in (1, 3):
        what = f"at most {max_tiles} tiles"
        options = dict(kind="letters", frames=FRAMES, tiles=max_tiles, tokens=8)
        run = check.answer(f"e2e-{max_tiles}", data, "--exact", "--videos", SAMPLES, **options, status=(0,))
        check_csv(check, what, run, data)
        differ, expected_rows = [], {}
        for clip in clips:
            check_pixels(check, run, clip, max_tiles, size)
            embeddings = reference.embed(model, run.array(clip, "tiles"))
            check.verdict(f"{what}, {clip}, embeddings", relative(run.array(clip, "embeddings"), embeddings), 1e-4)
            for entry in data:
                if entry["video_path"] == clip:
                    ids, rows = reference.generate(model, run.array(entry["id"], "tokens"), embeddings, 8, qwen2_vocab.IM_END)
                    text, row = tokenizer.decode(ids, skip_special_tokens=True).strip(), run.row[entry["id"]]
                    expected_rows[entry["id"]] = rows[0]
                    near = letter_margin(rows[0], 4)[1] < 6e-4  # six times what check_logits.py allows
                    if (row["raw_response"], row["answer"]) != (text, text[:1]) and not near:
                        differ.append(f"{entry['id']} {row['answer']} {row['raw_response']!r}, expected {text!r}")
        check.expect(f"{what}, answers of {len(data)} questions", not differ, "; ".join(differ) or
                     " ".join(row["answer"] for row in run.rows))
        half = check.answer(f"e2e-{max_tiles}-bf16", data, "--videos", SAMPLES, **options, llm="bf16", status=(0,))
        letters = Letters(3e-2)
        for entry in data:
            letters.add(entry["id"], half.array(entry["id"], "logits"), expected_rows[entry["id"]], 4)
        letters.report(check, f"{what}, bf16 in the default mode")

    check_refusals(check)
    check.exit()


def check_refusals(check):
    write_video(f"{check.work}/videos/v", 2, 150, 100, 1)
    small, tiny, big = (check.model(kind, "mmproj-f32.gguf") for kind in ("small", "tiny224", "6b"))
    for what, mmproj, words in (("an encoder of the 6B kind", big, ["6B"]),
                                ("an mmproj of another model", small, ["64", "128"])):
        run = check.answer("e2e-refuse", [question("q", "?", "v")], mmproj_path=mmproj, frames=1, status=None)
        lines = [line for line in run.stderr.strip().splitlines() if line.strip()]
        good = run.status == 1 and not run.rows and lines and all(word in lines[-1] for word in words)
        check.expect(f"{what} is refused in a line that says {' and '.join(words)}", good,
                     f"status {run.status}, {lines[-1] if lines else 'nothing said'!r}")
    run = check.answer("e2e-accept", [question("q", "?", "v")], mmproj_path=tiny, frames=1)
    check.expect("the mmproj that belongs to it is taken", len(run.rows) == 1)


if __name__ == "__main__":
    main()
