#!/usr/bin/env python3
"""Writes a small random InternVL3 as GGUF files, to see lowbeam at work without a published checkpoint.

    make_demo_model.py OUT_DIR --vocab models/ggml-vocab-qwen2.gguf [--seed N] [--plain-tokens N] [--layers N]

OUT_DIR/demo-llm.gguf and OUT_DIR/demo-mmproj.gguf have the real tokenizer, the real tile size (448 pixels, 256 visual
tokens) and weights drawn by chance: the answers mean nothing. It always says one of A to D and stops, since four places
of the residual stream, that no layer writes to, decide what follows what (see speak_letters).

Needs Python's standard library alone; a few seconds. The vocabulary comes with llama.cpp's sources.
"""
import argparse
import array
import math
import os
import random
import sys

import gguf_file as g
import qwen2_vocab

N_EMBD, N_FF, N_LAYER, N_HEAD, N_HEAD_KV = 64, 128, 2, 2, 1
V_EMBD, V_FF, V_LAYER, V_HEAD, SIZE, PATCH, SHUFFLE = 64, 128, 2, 1, 448, 14, 2
POOL = 1 << 16
N_BYTES = 256  # the first tokens of the vocabulary: bytes


class Weights:
    """Normal numbers, drawn once and reused from another place for each tensor: drawing 20 million takes too long."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.pool = [self.rng.gauss(0, 1) for _ in range(POOL)]

    def normal(self, n, std, mean=0.0):
        """n numbers. The step is odd, so that the pool is walked whole; it starts elsewhere on each walk."""
        values = array.array("f")
        while len(values) < n:
            start = self.rng.randrange(POOL)
            values.extend(std * x + mean for x in self.pool[start:start + n - len(values)])
        return values


def matrix(writer, weights, name, n_out, n_in, gain=1.0, zero_rows=0):
    values = weights.normal(n_out * n_in, gain / math.sqrt(n_in))
    values[:zero_rows * n_in] = array.array("f", bytes(4 * zero_rows * n_in))
    writer.tensor(name, g.F32, [n_in, n_out], values.tobytes())


def vector(writer, weights, name, n, std, mean=0.0):
    writer.tensor(name, g.F32, [n], weights.normal(n, std, mean).tobytes())


def speak_letters(embedding, output, n_vocab, im_end):
    """Place 0 stands in every token, 1 in the letters A to D alone. The output matrix turns the first into large logits
    of the letters and the second into a larger one of <|im_end|>: a letter, then the end."""
    letters = range(32, 36)
    for token in range(n_vocab):
        row = token * N_EMBD
        embedding[row:row + 2] = array.array("f", (0, 8) if token in letters else (8, 0))
        output[row:row + 2] = array.array("f", (60 if token in letters else 0, 60 if token == im_end else 0))


def write_llm(path, vocab, weights, n_plain, n_layer, tied):
    writer = g.Writer(path)
    n_vocab = n_plain + len(qwen2_vocab.ADDED)
    im_end = qwen2_vocab.IM_END - qwen2_vocab.N_PLAIN + n_plain
    pairs = g.read_pairs(vocab)
    writer.pair("general.architecture", g.STRING, "qwen2")
    writer.pair("general.name", g.STRING, "lowbeam demo, random weights: its answers mean nothing")
    for key, value in (("context_length", 32768), ("embedding_length", N_EMBD), ("block_count", n_layer),
                       ("feed_forward_length", N_FF), ("attention.head_count", N_HEAD),
                       ("attention.head_count_kv", N_HEAD_KV)):
        writer.pair("qwen2." + key, g.UINT32, value)
    writer.pair("qwen2.rope.freq_base", g.FLOAT32, 1e6)
    writer.pair("qwen2.attention.layer_norm_rms_epsilon", g.FLOAT32, 1e-6)
    writer.pair("general.file_type", g.UINT32, 0)
    tokens = pairs["tokenizer.ggml.tokens"][1][1][:n_plain]
    merges = pairs["tokenizer.ggml.merges"][1][1]
    if n_plain < qwen2_vocab.N_PLAIN:  # the bytes come first, then what each merge makes, in their order
        merges = merges[:n_plain - N_BYTES]
        assert [merge.replace(" ", "") for merge in merges] == tokens[N_BYTES:]
    tokens += [text for _, (text, _) in sorted(qwen2_vocab.ADDED.items())]
    # Control tokens as llama.cpp's converter marks them: all of this form; the two others are matched in texts.
    kinds = [1] * n_plain + [4 if "tool_call" in text else 3 for text in tokens[n_plain:]]
    writer.pair("tokenizer.ggml.model", g.STRING, "gpt2")
    writer.pair("tokenizer.ggml.pre", g.STRING, "qwen2")
    writer.pair("tokenizer.ggml.tokens", g.ARRAY, (g.STRING, tokens))
    writer.pair("tokenizer.ggml.token_type", g.ARRAY, (g.INT32, kinds))
    writer.pair("tokenizer.ggml.merges", g.ARRAY, (g.STRING, merges))
    writer.pair("tokenizer.ggml.eos_token_id", g.UINT32, im_end)
    writer.pair("tokenizer.ggml.padding_token_id", g.UINT32, n_plain)
    writer.pair("tokenizer.ggml.add_bos_token", g.BOOL, False)

    embedding = weights.normal(n_vocab * N_EMBD, 1.0)
    output = weights.normal(n_vocab * N_EMBD, 2.0 / math.sqrt(N_EMBD))
    speak_letters(embedding, output, n_vocab, im_end)
    writer.tensor("token_embd.weight", g.F32, [N_EMBD, n_vocab], embedding.tobytes())
    if not tied:
        writer.tensor("output.weight", g.F32, [N_EMBD, n_vocab], output.tobytes())
    vector(writer, weights, "output_norm.weight", N_EMBD, 0.0, 1.0)
    head = N_EMBD // N_HEAD
    for i in range(n_layer):
        p = f"blk.{i}."
        vector(writer, weights, p + "attn_norm.weight", N_EMBD, 0.2, 1.0)
        vector(writer, weights, p + "ffn_norm.weight", N_EMBD, 0.2, 1.0)
        for name, n_heads, gain in (("q", N_HEAD, 2.0), ("k", N_HEAD_KV, 2.0), ("v", N_HEAD_KV, 1.3)):
            matrix(writer, weights, f"{p}attn_{name}.weight", n_heads * head, N_EMBD, gain)
            vector(writer, weights, f"{p}attn_{name}.bias", n_heads * head, 0.3)
        matrix(writer, weights, p + "attn_output.weight", N_EMBD, N_EMBD, 8.0, zero_rows=2)
        matrix(writer, weights, p + "ffn_gate.weight", N_FF, N_EMBD)
        matrix(writer, weights, p + "ffn_up.weight", N_FF, N_EMBD)
        matrix(writer, weights, p + "ffn_down.weight", N_EMBD, N_FF, 3.0, zero_rows=2)
    writer.write()


def write_mmproj(path, weights, size=SIZE):
    writer = g.Writer(path)
    writer.pair("general.architecture", g.STRING, "clip")
    writer.pair("general.type", g.STRING, "mmproj")
    writer.pair("general.name", g.STRING, "lowbeam demo, random weights")
    writer.pair("general.file_type", g.UINT32, 0)
    writer.pair("clip.has_vision_encoder", g.BOOL, True)
    writer.pair("clip.projector_type", g.STRING, "internvl")
    writer.pair("clip.use_gelu", g.BOOL, True)
    for key, value in (("projection_dim", N_EMBD), ("image_size", size), ("patch_size", PATCH),
                       ("embedding_length", V_EMBD), ("feed_forward_length", V_FF), ("block_count", V_LAYER),
                       ("attention.head_count", V_HEAD), ("projector.scale_factor", SHUFFLE)):
        writer.pair("clip.vision." + key, g.UINT32, value)
    writer.pair("clip.vision.attention.layer_norm_epsilon", g.FLOAT32, 1e-6)
    writer.pair("clip.vision.image_mean", g.ARRAY, (g.FLOAT32, [0.485, 0.456, 0.406]))
    writer.pair("clip.vision.image_std", g.ARRAY, (g.FLOAT32, [0.229, 0.224, 0.225]))

    n_patches = (size // PATCH) ** 2
    vector(writer, weights, "v.class_embd", V_EMBD, 1.0)
    values = weights.normal(V_EMBD * 3 * PATCH * PATCH, 1.0 / math.sqrt(3 * PATCH * PATCH))
    writer.tensor("v.patch_embd.weight", g.F32, [PATCH, PATCH, 3, V_EMBD], values.tobytes())
    vector(writer, weights, "v.patch_embd.bias", V_EMBD, 0.2)
    values = weights.normal((n_patches + 1) * V_EMBD, 0.5)
    writer.tensor("v.position_embd.weight", g.F32, [V_EMBD, n_patches + 1], values.tobytes())
    for i in range(V_LAYER):
        p = f"v.blk.{i}."
        for name, std, mean in (("ln1", 0.2, 1.0), ("ln2", 0.2, 1.0)):
            vector(writer, weights, f"{p}{name}.weight", V_EMBD, std, mean)
            vector(writer, weights, f"{p}{name}.bias", V_EMBD, 0.2)
        for name in ("ls1", "ls2"):
            vector(writer, weights, f"{p}{name}.weight", V_EMBD, 0.3, 0.7)
        for name, n_out, n_in, gain in (("attn_q", V_EMBD, V_EMBD, 1.5), ("attn_k", V_EMBD, V_EMBD, 1.5),
                                        ("attn_v", V_EMBD, V_EMBD, 1.5), ("attn_out", V_EMBD, V_EMBD, 1.0),
                                        ("ffn_up", V_FF, V_EMBD, 1.5), ("ffn_down", V_EMBD, V_FF, 1.0)):
            matrix(writer, weights, f"{p}{name}.weight", n_out, n_in, gain)
            vector(writer, weights, f"{p}{name}.bias", n_out, 0.1)
    vector(writer, weights, "mm.model.mlp.0.weight", 4 * V_EMBD, 0.2, 1.0)
    vector(writer, weights, "mm.model.mlp.0.bias", 4 * V_EMBD, 0.2)
    for name, n_in in (("1", 4 * V_EMBD), ("3", N_EMBD)):
        matrix(writer, weights, f"mm.model.mlp.{name}.weight", N_EMBD, n_in, 1.5)
        vector(writer, weights, f"mm.model.mlp.{name}.bias", N_EMBD, 0.1)
    writer.write()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out"), ap.add_argument("--vocab", required=True), ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--plain-tokens", type=int, default=qwen2_vocab.N_PLAIN, help="the first N of the tokenizer alone: "
                    "texts become longer, and a model is opened in a fraction of the time (default: all)")
    ap.add_argument("--layers", type=int, default=N_LAYER, help="of the language model (default: %(default)s)")
    ap.add_argument("--image-size", type=int, default=SIZE, help="a tile's side in pixels (default: %(default)s)")
    ap.add_argument("--tied", action="store_true", help="the token embeddings are the output matrix as well, as in the small "
                    "checkpoints; it then says no letters, but has their probabilities")
    args = ap.parse_args()
    if args.image_size <= 0 or args.image_size % (PATCH * SHUFFLE):
        ap.error(f"--image-size: a multiple of {PATCH * SHUFFLE}")
    if not N_BYTES <= args.plain_tokens <= qwen2_vocab.N_PLAIN:
        ap.error(f"--plain-tokens: {N_BYTES} to {qwen2_vocab.N_PLAIN}")
    if sys.byteorder != "little":
        sys.exit("make_demo_model.py: writes little-endian files on little-endian machines alone")
    os.makedirs(args.out, exist_ok=True)
    weights = Weights(args.seed)
    for name, write in (("demo-llm.gguf", lambda path: write_llm(path, args.vocab, weights, args.plain_tokens,
                                                                 args.layers, args.tied)),
                        ("demo-mmproj.gguf", lambda path: write_mmproj(path, weights, args.image_size))):
        path = os.path.join(args.out, name)
        write(path + ".part")
        os.replace(path + ".part", path)  # a file under its name is a whole one
        print(f"{path} {os.path.getsize(path) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
