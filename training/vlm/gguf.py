"""Reads the weights of the small model back from its two f16 GGUF files, to go on from what ships.

Only what training/export.py and llama.cpp's converter write for this model: f32 and f16 tensors, GGUF version 2 or 3.
"""
import glob
import os
import re
import struct

import numpy as np
import torch

_SIZES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TYPES = {0: np.float32, 1: np.float16}
# llama.cpp's names on the left, transformers' on the right.
NAMES = [
    (r"^token_embd\.", "net.model.language_model.embed_tokens."), (r"^output_norm\.", "net.model.language_model.norm."),
    (r"^blk\.(\d+)\.attn_norm\.", r"net.model.language_model.layers.\1.input_layernorm."),
    (r"^blk\.(\d+)\.ffn_norm\.", r"net.model.language_model.layers.\1.post_attention_layernorm."),
    (r"^blk\.(\d+)\.attn_output\.", r"net.model.language_model.layers.\1.self_attn.o_proj."),
    (r"^blk\.(\d+)\.attn_([qkv])\.", r"net.model.language_model.layers.\1.self_attn.\2_proj."),
    (r"^blk\.(\d+)\.ffn_(gate|up|down)\.", r"net.model.language_model.layers.\1.mlp.\2_proj."),
    (r"^mm\.model\.mlp\.0\.", "net.model.multi_modal_projector.layer_norm."),
    (r"^mm\.model\.mlp\.1\.", "net.model.multi_modal_projector.linear_1."),
    (r"^mm\.model\.mlp\.3\.", "net.model.multi_modal_projector.linear_2."),
    (r"^v\.class_embd$", "net.model.vision_tower.embeddings.cls_token"),
    (r"^v\.position_embd\.weight$", "net.model.vision_tower.embeddings.position_embeddings"),
    (r"^v\.patch_embd\.", "net.model.vision_tower.embeddings.patch_embeddings.projection."),
    (r"^v\.blk\.(\d+)\.attn_out\.", r"net.model.vision_tower.encoder.layer.\1.attention.projection_layer."),
    (r"^v\.blk\.(\d+)\.attn_([qkv])\.", r"net.model.vision_tower.encoder.layer.\1.attention.\2_proj."),
    (r"^v\.blk\.(\d+)\.ln1\.", r"net.model.vision_tower.encoder.layer.\1.layernorm_before."),
    (r"^v\.blk\.(\d+)\.ln2\.", r"net.model.vision_tower.encoder.layer.\1.layernorm_after."),
    (r"^v\.blk\.(\d+)\.ffn_up\.", r"net.model.vision_tower.encoder.layer.\1.mlp.fc1."),
    (r"^v\.blk\.(\d+)\.ffn_down\.", r"net.model.vision_tower.encoder.layer.\1.mlp.fc2."),
    (r"^v\.blk\.(\d+)\.ls([12])\.weight$", r"net.model.vision_tower.encoder.layer.\1.lambda_\2"),
]


class _Reader:
    def __init__(self, path):
        self.path, self.at = path, 0
        with open(path, "rb") as file:
            self.data = file.read()

    def number(self, code):
        value = struct.unpack_from("<" + code, self.data, self.at)[0]
        self.at += struct.calcsize("<" + code)
        return value

    def string(self):
        n = self.number("Q")
        self.at += n
        return self.data[self.at - n:self.at]

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            kind, n = self.number("I"), self.number("Q")
            return [self.value(kind) for _ in range(n)]
        return self.number(_SIZES[kind])


def read(path):
    """{name: f32 array in PyTorch's order of axes}; nothing of a file of another kind, as the detector's."""
    r = _Reader(path)
    if r.data[:4] != b"GGUF":
        raise SystemExit(f"{path}: not a GGUF file")
    r.at = 8
    n_tensors, n_values = r.number("Q"), r.number("Q")
    known = {}
    for _ in range(n_values):
        key = r.string()
        known[key] = r.value(r.number("I"))
    if known.get(b"general.architecture") not in (b"qwen2", b"clip"):
        return {}
    entries = []
    for _ in range(n_tensors):
        name = r.string().decode()
        shape = [r.number("Q") for _ in range(r.number("I"))][::-1]
        entries.append((name, shape, r.number("I"), r.number("Q")))
    step = known.get(b"general.alignment", 32)
    begin = -(-r.at // step) * step
    out = {}
    for name, shape, kind, offset in entries:
        if kind not in _TYPES:
            raise SystemExit(f"{path}: '{name}' is quantized; the f16 files are needed")
        out[name] = np.frombuffer(r.data, _TYPES[kind], int(np.prod(shape)), begin + offset).reshape(shape).astype(np.float32)
    return out


def tensors(folder):
    """{name as the training's model has it: f32 tensor} of the folder's *.gguf files, whatever they are called."""
    out = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.gguf"))):
        for name, array in read(path).items():
            new = name
            for pattern, replacement in NAMES:
                new = re.sub(pattern, replacement, new)
            if new == name:
                raise SystemExit(f"{path}: '{name}' is no tensor of this model")
            out[new] = torch.from_numpy(array)
    return out
