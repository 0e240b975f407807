#!/usr/bin/env python3
"""Writes a small random InternVL checkpoint and the GGUF files that llama.cpp's own converter makes from it.

    make_test_models.py OUT_DIR --llama-cpp DIR [--kind KIND] [--seed N] [--types f32,f16,bf16,q8_0]
    make_test_models.py OUT_DIR --llama-cpp DIR --kind all      every kind in OUT_DIR/<kind>/, what is there is kept

OUT_DIR/hf/ is a checkpoint in OpenGVLab's published layout (config.json, model.safetensors, tokenizer files with the
real Qwen2 vocabulary); OUT_DIR/llm-<type>.gguf and OUT_DIR/mmproj-<type>.gguf are what convert_hf_to_gguf.py makes of it.

small    448 px, 256 tokens a tile, vision head size 64 as in InternViT-300M, Qwen2, separate output matrix
tiny224  224 px, 64 tokens a tile, vision head size 16, Qwen2, tied output matrix as in InternVL3-1B
qwen3    as tiny224 with Qwen3 as language model, as in InternVL3.5
letters  as tiny224; always says one of A to D, then ", đúng", and stops; random frames get different letters. (The comma is
         on purpose: in a GGUF made from the published folder, llama.cpp takes token 11, the comma, for the end of text.)
6b       an encoder of the 6B kind (RMS norm, normalised queries and keys): lowbeam must refuse it by name

DIR: llama.cpp's sources (vendor/llama.cpp in the source distribution of llama-cpp-python); or LOWBEAM_LLAMA_SRC.
Needs numpy, safetensors, and for the converter torch, transformers, sentencepiece.
"""
import argparse
import hashlib
import json
import os
import subprocess
import sys

import numpy as np

import qwen2_vocab

VISION = {  # size, hidden, layers, heads, feed forward; at least 4 layers, or the converter knows no name for mlp1.3
    "small": (448, 128, 4, 2, 256), "tiny224": (224, 64, 4, 4, 160), "qwen3": (224, 64, 4, 2, 128),
    "letters": (224, 64, 4, 2, 128), "6b": (448, 64, 4, 2, 128)}
TEXT = {  # hidden, layers, heads, heads of K and V, head size, feed forward
    "small": (128, 3, 4, 2, 32, 320), "tiny224": (64, 3, 4, 2, 16, 192), "qwen3": (64, 3, 4, 2, 32, 192),
    "letters": (64, 3, 4, 2, 16, 192), "6b": (64, 1, 2, 1, 32, 64)}
TIED = ("tiny224", "qwen3")
TYPES = {"small": "f32,f16,bf16,q8_0", "tiny224": "f32,f16,bf16,q8_0", "qwen3": "f32", "letters": "f32,bf16",
         "6b": "f32"}
PATCH, CONTEXT = 14, 32768
WORD = 129315  # " đúng"


def config(kind):
    size, v_hidden, v_layers, v_heads, v_ff = VISION[kind]
    hidden, layers, heads, kv_heads, head_size, ff = TEXT[kind]
    llm = {"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
           "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": hidden,
           "initializer_range": 0.02, "intermediate_size": ff, "max_position_embeddings": CONTEXT,
           "max_window_layers": 70, "model_type": "qwen2", "num_attention_heads": heads, "num_hidden_layers": layers,
           "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 1000000.0,
           "sliding_window": None, "tie_word_embeddings": kind in TIED, "torch_dtype": "bfloat16",
           "use_bfloat16": True, "use_cache": True, "use_sliding_window": False, "vocab_size": qwen2_vocab.N_VOCAB}
    if kind == "qwen3":
        llm.update(architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=head_size, attention_bias=False)
    big = kind == "6b"
    vision = {"architectures": ["InternVisionModel"], "attention_dropout": 0.0, "drop_path_rate": 0.1, "dropout": 0.0,
              "hidden_act": "gelu", "hidden_size": v_hidden, "image_size": size, "initializer_factor": 1.0,
              "initializer_range": 0.02, "intermediate_size": v_ff, "layer_norm_eps": 1e-6,
              "model_type": "intern_vit_6b", "norm_type": "rms_norm" if big else "layer_norm",
              "num_attention_heads": v_heads, "num_channels": 3, "num_hidden_layers": v_layers, "patch_size": PATCH,
              "qk_normalization": big, "qkv_bias": not big, "torch_dtype": "bfloat16", "use_bfloat16": True,
              "use_flash_attn": True}
    return {"architectures": ["InternVLChatModel"],
            "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
                         "AutoModel": "modeling_internvl_chat.InternVLChatModel",
                         "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel"},
            "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": size, "hidden_size": hidden,
            "llm_config": llm, "max_dynamic_patch": 12, "min_dynamic_patch": 1, "model_type": "internvl_chat",
            "pad2square": False, "ps_version": "v2", "select_layer": -1, "template": "internvl2_5",
            "tie_word_embeddings": llm["tie_word_embeddings"], "torch_dtype": "bfloat16", "use_backbone_lora": 0,
            "use_llm_lora": 0, "use_thumbnail": True, "vision_config": vision}


class Weights:
    """Random tensors by name. Every bias and norm is random as well: one that is left out or swapped shows."""

    def __init__(self, seed):
        self.rng, self.tensors = np.random.default_rng(seed), {}

    def normal(self, name, shape, std, mean=0.0):
        self.tensors[name] = (self.rng.standard_normal(shape, np.float32) * std + mean).astype(np.float32)

    def linear(self, name, n_out, n_in, gain=1.0, bias=0.1):
        self.normal(name + ".weight", (n_out, n_in), gain / np.sqrt(n_in))
        if bias:
            self.normal(name + ".bias", (n_out,), bias)

    def norm(self, name, n, bias=True):
        self.normal(name + ".weight", (n,), 0.2, 1.0)
        if bias:
            self.normal(name + ".bias", (n,), 0.2)


def weights(kind, seed):
    """Gains are chosen so that attention is neither flat nor one-hot, a single changed visual token moves the logits by
    more than the checks allow, a greedy text does not merely repeat its last token, and the logits spread by about 2."""
    w = Weights(seed)
    size, v_hidden, v_layers, _, v_ff = VISION[kind]
    hidden, layers, heads, kv_heads, head_size, ff = TEXT[kind]
    big = kind == "6b"

    p = "vision_model.embeddings."
    w.normal(p + "class_embedding", (1, 1, v_hidden), 1.0)
    w.normal(p + "patch_embedding.weight", (v_hidden, 3, PATCH, PATCH), 1.0 / np.sqrt(3 * PATCH * PATCH))
    w.normal(p + "patch_embedding.bias", (v_hidden,), 0.2)
    # Of the size of the patches' own values: positions off by one must show.
    w.normal(p + "position_embedding", (1, (size // PATCH) ** 2 + 1, v_hidden), 0.5)
    for i in range(v_layers):
        p = f"vision_model.encoder.layers.{i}."
        w.norm(p + "norm1", v_hidden, not big), w.norm(p + "norm2", v_hidden, not big)
        w.linear(p + "attn.qkv", 3 * v_hidden, v_hidden, 1.5, 0 if big else 0.2)
        if big:
            w.norm(p + "attn.q_norm", v_hidden, False), w.norm(p + "attn.k_norm", v_hidden, False)
        w.linear(p + "attn.proj", v_hidden, v_hidden)
        w.linear(p + "mlp.fc1", v_ff, v_hidden, 1.5), w.linear(p + "mlp.fc2", v_hidden, v_ff)
        w.normal(p + "ls1", (v_hidden,), 0.3, 0.7), w.normal(p + "ls2", (v_hidden,), 0.3, 0.7)
    w.norm("mlp1.0", 4 * v_hidden)
    w.linear("mlp1.1", hidden, 4 * v_hidden, 1.5), w.linear("mlp1.3", hidden, hidden, 1.5)

    w.normal("language_model.model.embed_tokens.weight", (qwen2_vocab.N_VOCAB, hidden), 1.0)
    qkv_bias = 0 if kind == "qwen3" else 0.3
    sharp = 2.0 if kind == "letters" else 1.3  # attention that picks single tokens: the letter depends on the prompt
    for i in range(layers):
        p = f"language_model.model.layers.{i}."
        w.norm(p + "input_layernorm", hidden, False), w.norm(p + "post_attention_layernorm", hidden, False)
        for name, n_heads in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            w.linear(p + f"self_attn.{name}_proj", n_heads * head_size, hidden, sharp if name != "v" else 1.3, qkv_bias)
        if kind == "qwen3":
            w.norm(p + "self_attn.q_norm", head_size, False), w.norm(p + "self_attn.k_norm", head_size, False)
        w.linear(p + "self_attn.o_proj", hidden, heads * head_size, 3.0 if kind != "letters" else 8.0, 0)
        w.linear(p + "mlp.gate_proj", ff, hidden, 1.0, 0), w.linear(p + "mlp.up_proj", ff, hidden, 1.0, 0)
        w.linear(p + "mlp.down_proj", hidden, ff, 3.0, 0)
    w.normal("language_model.model.norm.weight", (hidden,), 0.05, 0.3 if kind in TIED else 1.0)
    if kind not in TIED:
        w.normal("language_model.lm_head.weight", (qwen2_vocab.N_VOCAB, hidden), 2.0 / np.sqrt(hidden))
    if kind == "letters":
        speak_letters(w.tensors)
    return w.tensors


def speak_letters(tensors):
    """Reserves four places of the residual stream for what the last token was: anything, a letter, the comma, the word.
    No layer writes there; the output matrix turns each into a large logit of what comes next."""
    prefix = "language_model.model."
    embedding, output = tensors[prefix + "embed_tokens.weight"], tensors["language_model.lm_head.weight"]
    for name, tensor in tensors.items():
        if name.startswith(prefix) and name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[:4] = 0
    embedding[:, :4] = [8, 0, 0, 0]
    output[:, :4] = 0
    after_any, after_letter, after_comma, after_word = [list(range(32, 36))], [[11]], [[WORD]], [[qwen2_vocab.IM_END]]
    for place, (said, follows) in enumerate(zip(([], after_any[0], [11], [WORD]),
                                                (after_any, after_letter, after_comma, after_word))):
        for token in said:
            embedding[token, :4] = 8 * np.eye(4)[place]
        output[follows[0], place] = 60
    tensors[prefix + "norm.weight"][:4] = 1


def write_checkpoint(folder, kind, seed, llama_cpp):
    from safetensors.numpy import save_file
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config(kind), file, indent=2)
    size = VISION[kind][0]
    with open(os.path.join(folder, "preprocessor_config.json"), "w") as file:
        json.dump({"crop_size": size, "do_center_crop": True, "do_normalize": True, "do_resize": True,
                   "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.485, 0.456, 0.406],
                   "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": size}, file, indent=2)
    qwen2_vocab.write_files(folder, qwen2_vocab.vocab_path(llama_cpp))
    save_file(weights(kind, seed), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def convert(llama_cpp, folder, out, outtype, mmproj):
    """Runs llama.cpp's own script, as a user with the published checkpoint does."""
    command = [sys.executable, os.path.join(llama_cpp, "convert_hf_to_gguf.py"), folder, "--outfile", out, "--outtype",
               outtype] + (["--mmproj"] if mmproj else [])
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode or not os.path.exists(out):
        print(done.stdout[-4000:], file=sys.stderr)
        raise SystemExit("failed: " + " ".join(command))
    print(f"{out} {os.path.getsize(out) / 2**20:.1f} MiB", flush=True)


def make(out, kind, seed, types, llama_cpp):
    """Nothing is done where a finished set made by the same scripts lies already."""
    digest = hashlib.sha256(json.dumps([seed, types]).encode())
    for script in (__file__, qwen2_vocab.__file__):
        with open(script, "rb") as file:
            digest.update(file.read())
    stamp = os.path.join(out, "made-by")
    if os.path.exists(stamp) and open(stamp).read() == digest.hexdigest():
        print(f"{out}: up to date")
        return
    folder = os.path.join(out, "hf")
    write_checkpoint(folder, kind, seed, llama_cpp)
    for outtype in types.split(","):
        convert(llama_cpp, folder, os.path.join(out, f"mmproj-{outtype}.gguf"), outtype, True)
        if kind != "6b":
            convert(llama_cpp, folder, os.path.join(out, f"llm-{outtype}.gguf"), outtype, False)
    with open(stamp, "w") as file:
        file.write(digest.hexdigest())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out"), ap.add_argument("--kind", choices=[*VISION, "all"], default="small")
    ap.add_argument("--llama-cpp", default=os.environ.get("LOWBEAM_LLAMA_SRC"))
    ap.add_argument("--seed", type=int, default=1), ap.add_argument("--types", help="default: those that the checks use")
    args = ap.parse_args()
    if not args.llama_cpp:
        ap.error("--llama-cpp DIR or the variable LOWBEAM_LLAMA_SRC must name llama.cpp's sources")
    for kind in VISION if args.kind == "all" else [args.kind]:
        out = os.path.join(args.out, kind) if args.kind == "all" else args.out
        make(out, kind, args.seed, args.types or TYPES[kind], args.llama_cpp)


if __name__ == "__main__":
    main()
