#!/usr/bin/env python3
"""The detector against transformers, bottom up: every part's output on small random models. In f32 on the CPU three times:
as users run it, by ggml's operations alone (--gathers), and as it is cut for a GPU with the kernels run on the CPU
(--kernels, tests/detector/ops_on_cpu.cpp).

    check_detector.py --build BUILD [--detector-models DIR] [--work DIR] [--device cpu] [--kind a|b] [--type f32|f16|f16-exact|q8_0]

DIR is what tools/make_detector_models.py wrote, by default into WORK; `lowbeam convert` makes GGUF files of it.
BUILD/tests/dump_detector (tests/detector/dump_detector.c) runs each case and writes its intermediates; each is compared
by relative error, limit in f32 1e-4: sums in another order, about 1e-6 is seen. On a GPU f32 runs with --exact: what
users run there multiplies f32 in tf32, by 10 bits of mantissa, and is held to 5e-2 by bench/detector_agreement.py. f16
3e-2, f16-exact 1e-2 and q8_0 2e-1 only show that these files are read rightly: weights rounded to f16 give 1e-3 here, to
q8_0 up to 1e-1 in the scores, and but for f16-exact the CPU rounds what it multiplies them with, too. Padding is left out: the reference fills it with
values that nothing depends on.

With random weights the choice of queries may hang on near ties: where the scores at the cut lie within 1e-5 of each
other, either choice is right; the reference's is then handed in, and what follows from it compared.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

LIMIT = {"f32": 1e-4, "f16": 3e-2, "f16-exact": 1e-2, "q8_0": 2e-1}
NEAR = 1e-5
PARTS = ("text", "map", "projected", "encoder", "scores", "decoder", "logits", "boxes")


class Checks:
    def __init__(self):
        self.n, self.failed, self.largest = 0, [], {}

    def verdict(self, what, error, limit, note=""):
        self.n += 1
        good = bool(error <= limit)  # not a number fails
        part = what.split(": ")[-1].split("_")[0]
        if " f32 " in what and part in PARTS:
            self.largest[part] = max(self.largest.get(part, 0.0), error)
        line = f"{what}: {error:.2e}, limit {limit:.0e}{note}"
        if not good:
            self.failed.append(line)
        print(("ok   " if good else "FAIL ") + line, flush=True)


def relative(ours, expected, keep=None):
    """||a - b|| / ||b|| in double precision; infinite where the shapes differ or something is not finite."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    if ours.size != expected.size or not np.isfinite(ours).all():
        return float("inf")
    ours = ours.reshape(expected.shape)
    if keep is not None:
        ours, expected = ours[keep], expected[keep]
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


def run(args, model, case, out, options):
    os.makedirs(out, exist_ok=True)
    program = "dump_detector_ops" if "--kernels" in options else "dump_detector"
    command = [os.path.join(args.build, "tests", program), model, case, out, "--device", args.device, *options]
    # on a GPU f32 is tf32 without it; on the CPU it has the graph that is run there then compared
    exact = "--kernels" in options or (args.device != "cpu" and "f32" in os.path.basename(model))
    command += ["--exact"] if exact else []
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"FAIL {' '.join(command)}: status {done.returncode}\n{done.stderr[-4000:]}")
    return {name[:-4]: np.load(os.path.join(out, name)) for name in os.listdir(out) if name.endswith(".npy")}


def prepare(ref, folder):
    """The case as raw files, which a C program reads without a parser."""
    os.makedirs(folder, exist_ok=True)
    ref["tokens"].astype(np.int32).tofile(os.path.join(folder, "tokens.i32"))
    ref["sizes"].astype(np.int32).tofile(os.path.join(folder, "sizes.i32"))
    for i in range(len(ref["sizes"])):
        ref[f"image_{i}"].tofile(os.path.join(folder, f"image_{i}.rgb"))


def same_choice(checks, what, scores, ref_scores, chosen):
    """Whether our best are the reference's, in its order; scores that could be exchanged are near ties."""
    same = True
    for i, (ours, theirs) in enumerate(zip(scores, ref_scores)):
        best = np.lexsort((np.arange(len(ours)), -ours))[:len(chosen[i])]
        if np.array_equal(best, chosen[i]):
            continue
        same = False
        at = np.flatnonzero(best != chosen[i])
        gap = max(abs(float(theirs[best[k]]) - float(theirs[chosen[i][k]])) for k in at)
        spread = float(np.abs(theirs).max())
        checks.verdict(f"{what}: choice of picture {i}, {len(at)} of {len(best)} places differ, as near ties",
                       gap / spread, NEAR)
    return same


def check_case(checks, models, args, kind, weights, name, work, options):
    limit = LIMIT[weights]
    ref_dir = os.path.join(models, kind, "ref", name)
    ref = {f[:-4]: np.load(os.path.join(ref_dir, f)) for f in os.listdir(ref_dir)}
    case, model = os.path.join(work, kind, f"{name}-{weights}"), os.path.join(work, kind, weights + ".gguf")
    prepare(ref, case)
    what = f"{kind} {weights} {name}{' ' + ' '.join(options) if options else ''}"
    ours = run(args, model, case, os.path.join(case, "out" + "".join(options)), options)
    keep = ref["valid"].astype(bool)
    n_layers = {part: sum(key.startswith(part + "_") for key in ref) for part in
                ("bert", "map", "fusion_vision", "logits", "decoder")}

    def compare(key, mask=None):
        if key not in ours:
            checks.verdict(f"{what}: {key} is missing", float("inf"), limit)
            return
        a, b = ours[key], ref[key]
        if key == "position" and len(a) * len(b) == len(b) != 1 and a.size * len(b) == b.size:
            a = np.repeat(a, len(b), 0)  # one for all pictures of a batch that have the same size
        error = relative(a, b, mask)
        note = ""
        if error > limit and a.size == b.size:
            difference = np.abs(a.reshape(b.shape) - b) * (1 if mask is None else mask[..., None])
            at = np.unravel_index(np.nanargmax(difference), b.shape)
            note = f" largest at {list(map(int, at))}: {a.reshape(b.shape)[at]:.6g}, expected {b[at]:.6g}"
        elif a.size != b.size:
            note = f" shapes {a.shape}, expected {b.shape}"
        checks.verdict(f"{what}: {key}", error, limit, note)

    for i in range(n_layers["bert"]):
        compare(f"bert_{i}")
    compare("text")
    for i in range(n_layers["map"]):
        compare(f"map_{i}")
    compare("projected")
    compare("position", keep)
    for i in range(n_layers["fusion_vision"]):
        compare(f"fusion_vision_{i}", keep)
        compare(f"fusion_text_{i}")
        compare(f"encoder_text_{i}")
        compare(f"encoder_vision_{i}", keep)
    compare("scores")
    # other weights choose other queries
    if weights != "f32" or not same_choice(checks, what, ours["scores"].reshape(ref["scores"].shape), ref["scores"],
                                           ref["chosen"]):
        choice = os.path.join(case, "choice.i32")
        ref["chosen"].astype(np.int32).tofile(choice)
        ours = run(args, model, case, os.path.join(case, "chosen" + "".join(options)),
                   [*options, "--choice", choice])
    compare("reference_0")
    for i in range(n_layers["decoder"]):
        last = i + 1 == n_layers["decoder"]
        compare(f"decoder_{i}")
        if last:
            compare("logits")
            compare("boxes")
        else:
            compare(f"logits_{i}")
            compare(f"boxes_{i}")
            compare(f"reference_{i + 1}")
    if weights != "f32":
        return
    # The order and what is over a threshold: what users see. Half the queries are over the middle score.
    scores = 1 / (1 + np.exp(-ref["logits"].max(-1)))
    our_scores = 1 / (1 + np.exp(-ours["logits"].reshape(ref["logits"].shape).max(-1)))
    threshold = np.median(scores)
    sure = np.abs(scores - threshold) > NEAR
    checks.verdict(f"{what}: queries on the other side of a threshold",
                   int(((our_scores > threshold) != (scores > threshold))[sure].sum()), 0)
    checks.verdict(f"{what}: corners, in widths of the picture",
                   float(np.abs(ours["boxes"].reshape(ref["boxes"].shape) - ref["boxes"]).max()), limit)


def check_damage(checks, args, models, kind, work):
    """Weights that are not numbers, one part after the other: each way of sampling ends with one line, and no crash."""
    from safetensors.numpy import load_file
    tensors = load_file(os.path.join(models, kind, "hf", "model.safetensors"))
    with open(os.path.join(work, kind, "f32.gguf"), "rb") as file:
        good = file.read()
    for name in ("model.encoder.layers.0.deformable_layer.self_attn.sampling_offsets.weight",
                 "model.decoder.layers.0.encoder_attn.sampling_offsets.weight", "model.text_projection.weight",
                 "model.backbone.conv_encoder.model.embeddings.patch_embeddings.projection.weight",
                 "model.decoder.layers.1.encoder_attn.attention_weights.weight"):
        values = tensors[name].astype(np.float32).tobytes()
        at = good.find(values)
        assert at > 0 and good.find(values, at + 1) < 0, name
        for what, value in (("nan", np.nan), ("inf", np.inf), ("huge", 3e38)):
            path = os.path.join(work, kind, "damaged.gguf")
            with open(path, "wb") as file:
                file.write(good[:at] + np.full(len(values) // 4, value, np.float32).tobytes() + good[at + len(values):])
            for options in [[], ["--gathers"]]:
                out = os.path.join(work, kind, "damaged")
                os.makedirs(out, exist_ok=True)
                done = subprocess.run([os.path.join(args.build, "tests", "dump_detector"), path,
                                       os.path.join(work, kind, "one-f32"), out, "--device", args.device, *options],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
                lines = done.stderr.strip().splitlines()
                told = done.returncode == 1 and len(lines) == 1 and "finite" in lines[0]
                fine = done.returncode == 0 and not lines and what == "huge"  # a saturated softmax is no fault
                checks.verdict(f"{kind} {what} in {name} {' '.join(options)}: {lines[-1] if lines else 'no message'}",
                               0.0 if told or fine else float(abs(done.returncode) + 1), 0)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", required=True)
    ap.add_argument("--detector-models")
    ap.add_argument("--work")
    ap.add_argument("--device", default="cpu")
    ap.add_argument("--kind", choices=["a", "b"])
    ap.add_argument("--type", choices=list(LIMIT))
    args = ap.parse_args()
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="lowbeam-check-") as temporary:
        work = args.work or temporary
        models = args.detector_models or os.path.join(work, "models")
        if not os.path.isdir(models):
            maker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "make_detector_models.py")
            subprocess.run([sys.executable, maker, models], check=True, stderr=subprocess.DEVNULL)
        for kind in [args.kind] if args.kind else ["a", "b"]:
            os.makedirs(os.path.join(work, kind), exist_ok=True)
            for weights in [args.type] if args.type else LIMIT:
                gguf = os.path.join(work, kind, weights + ".gguf")
                subprocess.run([os.path.join(args.build, "lowbeam"), "convert", os.path.join(models, kind, "hf"), "-o", gguf,
                                "--type", weights], check=True, stderr=subprocess.DEVNULL)
                for name in sorted(os.listdir(os.path.join(models, kind, "ref"))):
                    both = args.device == "cpu" and weights == "f32"
                    ways = [[]]
                    if both:
                        ways += [["--gathers"]]
                        if os.path.exists(os.path.join(args.build, "tests", "dump_detector_ops")):
                            ways += [["--kernels"]]
                    for options in ways:
                        check_case(checks, models, args, kind, weights, name, work, options)
        if not args.kind and not args.type:
            check_damage(checks, args, models, "a", work)
    print(f"{os.path.basename(sys.argv[0])}: {checks.n - len(checks.failed)} of {checks.n} comparisons hold; largest "
          "relative errors in f32: " + ", ".join(f"{part} {error:.1e}" for part, error in checks.largest.items()))
    for line in checks.failed:
        print("FAIL " + line, file=sys.stderr)
    sys.exit(1 if checks.failed or not checks.n else 0)


if __name__ == "__main__":
    main()
