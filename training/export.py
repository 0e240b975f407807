#!/usr/bin/env python3
"""Turns what training/train.sh wrote into the files that lowbeam reads.

    export.py TRAINED_DIR OUT_DIR --llama-cpp DIR [--types f16,q8_0,f32]

OUT_DIR/hf/ is a checkpoint in OpenGVLab's published layout, as the big models come; OUT_DIR/llm-<type>.gguf and
OUT_DIR/mmproj-<type>.gguf are what llama.cpp's convert_hf_to_gguf.py makes of it. That script knows a vocabulary by the
tokens that it makes of a sample text; ours is no published one, so here it is told: Qwen2's pre-tokenizer.

DIR: llama.cpp's sources (vendor/llama.cpp in the source distribution of llama-cpp-python); or LOWBEAM_LLAMA_SRC.
Needs torch, transformers, tokenizers, safetensors, numpy, sentencepiece.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from vlm import dialogue, model as M, tokenizer  # noqa: E402

# transformers' names on the left, OpenGVLab's on the right: the other way round than in tools/reference.py.
NAMES = [
    (r"^net\.", ""),
    (r"^model\.vision_tower\.embeddings\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^model\.vision_tower\.embeddings\.patch_embeddings\.projection\.", "vision_model.embeddings.patch_embedding."),
    (r"^model\.vision_tower\.embeddings\.position_embeddings$", "vision_model.embeddings.position_embedding"),
    (r"^model\.vision_tower\.encoder\.layer\.", "vision_model.encoder.layers."),
    (r"\.layernorm_before\.", ".norm1."), (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.projection_layer\.", ".attn.proj."), (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.lambda_1$", ".ls1"), (r"\.lambda_2$", ".ls2"),
    (r"^model\.multi_modal_projector\.layer_norm\.", "mlp1.0."),
    (r"^model\.multi_modal_projector\.linear_1\.", "mlp1.1."),
    (r"^model\.multi_modal_projector\.linear_2\.", "mlp1.3."),
    (r"^model\.language_model\.", "language_model.model."),
]

CONVERT = """
import sys
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[1:]
sys.argv[0] += "/convert_hf_to_gguf.py"
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def config(size, vocab_size, end_id):
    v_hidden, v_layers, v_heads, v_ff = M.SIZES[size]["vision"]
    hidden, layers, heads, kv_heads, ff = M.SIZES[size]["text"]
    llm = {"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": end_id,
           "hidden_act": "silu", "hidden_size": hidden, "initializer_range": 0.02, "intermediate_size": ff,
           "max_position_embeddings": M.CONTEXT, "max_window_layers": layers, "model_type": "qwen2",
           "num_attention_heads": heads, "num_hidden_layers": layers, "num_key_value_heads": kv_heads,
           "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": M.THETA, "sliding_window": None,
           "tie_word_embeddings": True, "torch_dtype": "float16", "use_cache": True, "use_sliding_window": False,
           "vocab_size": vocab_size}
    vision = {"architectures": ["InternVisionModel"], "attention_dropout": 0.0, "drop_path_rate": 0.0, "dropout": 0.0,
              "hidden_act": "gelu", "hidden_size": v_hidden, "image_size": M.SIZE, "initializer_factor": 1.0,
              "initializer_range": 0.02, "intermediate_size": v_ff, "layer_norm_eps": 1e-6,
              "model_type": "intern_vit_6b", "norm_type": "layer_norm", "num_attention_heads": v_heads,
              "num_channels": 3, "num_hidden_layers": v_layers, "patch_size": M.PATCH, "qk_normalization": False,
              "qkv_bias": True, "torch_dtype": "float16", "use_flash_attn": False}
    return {"architectures": ["InternVLChatModel"], "downsample_ratio": 0.5, "dynamic_image_size": True,
            "force_image_size": M.SIZE, "hidden_size": hidden, "llm_config": llm, "max_dynamic_patch": 12,
            "min_dynamic_patch": 1, "model_type": "internvl_chat", "pad2square": False, "ps_version": "v2",
            "select_layer": -1, "template": "internvl2_5", "tie_word_embeddings": True, "torch_dtype": "float16",
            "use_thumbnail": True, "vision_config": vision}


def published(tensors):
    """OpenGVLab's names; query, key and value fused in the encoder."""
    out = {}
    for name, tensor in tensors.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    for name in [name for name in out if ".attn.q." in name]:
        fused = torch.cat([out.pop(name.replace(".attn.q.", f".attn.{x}.")) for x in "qkv"])
        out[name.replace(".attn.q.", ".attn.qkv.")] = fused
    return out


def write_checkpoint(trained, folder):
    with open(os.path.join(trained, "model.json"), encoding="utf-8") as file:
        size = json.load(file)["size"]
    tensors = {}
    for part in ("vision", "text"):
        tensors.update(load_file(os.path.join(trained, M.FILES[part])))
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise SystemExit(f"{trained}: '{broken[0]}' holds what is no number, in f16")
    tensors = published(tensors)
    os.makedirs(folder, exist_ok=True)
    vocab = tensors["language_model.model.embed_tokens.weight"].shape[0]
    lines = dialogue.Dialogue(tokenizer.load())
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config(size, vocab, lines.id["<|im_end|>"]), file, indent=2)
    with open(os.path.join(folder, "preprocessor_config.json"), "w") as file:
        json.dump({"crop_size": M.SIZE, "do_center_crop": True, "do_normalize": True, "do_resize": True,
                   "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": list(M.MEAN), "image_std": list(M.STD),
                   "resample": 3, "size": M.SIZE}, file, indent=2)
    for name in os.listdir(tokenizer.FOLDER):
        shutil.copy(os.path.join(tokenizer.FOLDER, name), folder)
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with safe_open(os.path.join(folder, "model.safetensors"), "pt") as file:
        print(f"{folder}: {len(list(file.keys()))} tensors, "
              f"{sum(tensor.numel() for tensor in tensors.values()) / 1e6:.2f} M parameters")


def convert(llama_cpp, folder, out, outtype, mmproj):
    command = [sys.executable, "-c", CONVERT, llama_cpp, folder, "--outfile", out, "--outtype", outtype, "--model-name",
               "lowbeam default model, drawn scenes only"] + (["--mmproj"] if mmproj else [])
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode or not os.path.exists(out):
        print(done.stdout[-4000:], file=sys.stderr)
        raise SystemExit(f"{out}: llama.cpp's converter failed")
    print(f"{out} {os.path.getsize(out) / 2**20:.2f} MiB", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("trained"), ap.add_argument("out")
    ap.add_argument("--llama-cpp", default=os.environ.get("LOWBEAM_LLAMA_SRC"))
    ap.add_argument("--types", default="f16,q8_0")
    args = ap.parse_args()
    if not args.llama_cpp:
        ap.error("--llama-cpp DIR or the variable LOWBEAM_LLAMA_SRC must name llama.cpp's sources")
    folder = os.path.join(args.out, "hf")
    write_checkpoint(args.trained, folder)
    for outtype in args.types.split(","):
        convert(args.llama_cpp, folder, os.path.join(args.out, f"llm-{outtype}.gguf"), outtype, False)
        convert(args.llama_cpp, folder, os.path.join(args.out, f"mmproj-{outtype}.gguf"), outtype, True)


if __name__ == "__main__":
    main()
