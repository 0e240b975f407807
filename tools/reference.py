#!/usr/bin/env python3
"""The yardstick: a checkpoint in OpenGVLab's layout, run by transformers' InternVLForConditionalGeneration in f32.

    reference.py CHECKPOINT_DIR --dump DIR [--tiles N] [--seed S]

As a module: frame_indices and cut as the replaced program has them; load(folder) -> model; embed(model, tiles) ->
[t * tokens, d]; logits(model, tokens, embeddings) -> [vocab]; generate(...) -> greedy token ids.
As a program it writes what an encoder is debugged against, from the bottom up, as .npy files in DIR:

    tiles.npy            [t, s, s, 3] u8, two synthetic pictures (noise; a gradient with shapes)
    pixels.npy           [t, 3, s, s] f32, (x / 255 - mean) / std
    embedded.npy         [t, 1 + p, h] f32, patches with class token (first) and positions
    layer_00.npy, ...    [t, 1 + p, h] f32, after each layer
    shuffled.npy         [t, p / 4, 4 h] f32, after the pixel shuffle, before the projector
    embeddings.npy       [t * p / 4, d] f32, what the language model is fed
    lm_tokens.npy        [n] i32, random tokens around the picture, -1 for each visual token
    lm_logits.npy        [vocab] f32, after the last of them

Needs torch, transformers, safetensors, numpy. Compared with transformers 5.23.
"""
import argparse
import json
import os
import re

import numpy as np

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

# OpenGVLab's names on the left, transformers' on the right.
_NAMES = [
    (r"^vision_model\.embeddings\.class_embedding$", "model.vision_tower.embeddings.cls_token"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "model.vision_tower.embeddings.patch_embeddings.projection."),
    (r"^vision_model\.embeddings\.position_embedding$", "model.vision_tower.embeddings.position_embeddings"),
    (r"^vision_model\.encoder\.layers\.", "model.vision_tower.encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.projection_layer."), (r"\.attn\.([qk])_norm\.", r".attention.\1_norm."),
    (r"\.ls1$", ".lambda_1"), (r"\.ls2$", ".lambda_2"),
    (r"^mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "model.multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "model.multi_modal_projector.linear_2."),
    (r"^language_model\.lm_head\.", "lm_head."), (r"^language_model\.model\.", "model.language_model."),
]


def _rename(name, tensor):
    """(new name, tensor) pairs; the fused query, key and value become three."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    if ".attn.qkv." in name:
        return [(name.replace("attn.qkv", f"attention.{x}_proj"), part)
                for x, part in zip("qkv", tensor.chunk(3, dim=0))]
    return [(name, tensor)]


def load(folder, attention="eager"):
    """The model in f32. attention: eager or sdpa (both compute in f32 on the CPU)."""
    import torch
    from safetensors.torch import load_file
    from transformers import InternVLConfig, InternVLForConditionalGeneration
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    text, vision = config["llm_config"], config["vision_config"]
    text = {key: text[key] for key in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers",
                                       "num_attention_heads", "num_key_value_heads", "intermediate_size",
                                       "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
                                       "head_dim") if key in text}
    # transformers 5 reads the base from rope_parameters; a rope_theta beside it would be overlooked.
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": config["llm_config"]["rope_theta"]}
    size, patch = vision["image_size"], vision["patch_size"]
    internvl = InternVLConfig(
        text_config=text, image_token_id=151667, image_seq_length=int((size // patch * config["downsample_ratio"]) ** 2),
        downsample_ratio=config["downsample_ratio"], tie_word_embeddings=text["tie_word_embeddings"],
        vision_config=dict(
            hidden_size=vision["hidden_size"], num_hidden_layers=vision["num_hidden_layers"],
            num_attention_heads=vision["num_attention_heads"], intermediate_size=vision["intermediate_size"],
            image_size=[size, size], patch_size=[patch, patch], use_qk_norm=vision["qk_normalization"],
            attention_bias=vision["qkv_bias"], norm_type=vision["norm_type"], layer_norm_eps=vision["layer_norm_eps"],
            hidden_act=vision["hidden_act"]))
    internvl._attn_implementation = attention
    model = InternVLForConditionalGeneration(internvl)
    state = {}
    for name, tensor in load_file(os.path.join(folder, "model.safetensors")).items():
        state.update(_rename(name, tensor.float()))
    missing, unexpected = model.load_state_dict(state, strict=False)
    if text["tie_word_embeddings"]:
        model.tie_weights()
        missing = [name for name in missing if name != "lm_head.weight"]
    if missing or unexpected:
        raise SystemExit(f"{folder}: transformers misses {missing} and does not know {unexpected}")
    return model.float().eval()


def frame_indices(n, count):
    """n indices spread over a clip of count frames, as the replaced program takes them."""
    segment = (count - 1) / n
    return [int(segment / 2 + np.round(segment * i)) for i in range(n)]


def cut(frame, max_tiles, size):
    """[h, w, 3] u8 to [t, s, s, 3] u8: InternVL's dynamic preprocessing with Pillow."""
    from PIL import Image
    picture = Image.fromarray(frame)
    width, height = picture.size
    grids = sorted({(i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles + 1) if i * j <= max_tiles},
                   key=lambda grid: grid[0] * grid[1])
    best, least = (1, 1), float("inf")
    for i, j in grids:
        difference = abs(width / height - i / j)
        if difference < least or (difference == least and width * height > 0.5 * size * size * i * j):
            best, least = (i, j), difference
    i, j = best
    whole = picture.resize((size * i, size * j))
    tiles = [whole.crop((x * size, y * size, (x + 1) * size, (y + 1) * size)) for y in range(j) for x in range(i)]
    if len(tiles) > 1:
        tiles.append(picture.resize((size, size)))
    return np.stack([np.asarray(tile) for tile in tiles])


def pixels(tiles):
    """[t, s, s, 3] u8 to [t, 3, s, s] f32, as the reference's image processor computes it."""
    scaled = (tiles.astype(np.float32) / np.float32(255) - MEAN) / STD
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def embed(model, tiles, batch=4):
    """[t, s, s, 3] u8 tiles to [t * tokens a tile, d] f32 embeddings."""
    import torch
    with torch.no_grad():
        parts = [model.get_image_features(pixel_values=torch.from_numpy(pixels(tiles[i:i + batch]))).pooler_output
                 for i in range(0, len(tiles), batch)]
    return torch.cat(parts).flatten(0, 1).numpy()


def spliced(model, tokens, embeddings):
    """[1, n, d]: token embeddings, with embeddings' rows where tokens hold -1."""
    import torch
    tokens = torch.from_numpy(np.asarray(tokens, np.int64))
    with torch.no_grad():
        rows = model.get_input_embeddings()(tokens.clamp(min=0))
        if (tokens < 0).any():
            rows[tokens < 0] = torch.from_numpy(np.array(embeddings, np.float32))
    return rows[None]


def logits(model, tokens, embeddings):
    """[vocab] f32 after the last token."""
    import torch
    with torch.no_grad():
        return model(inputs_embeds=spliced(model, tokens, embeddings), logits_to_keep=1).logits[0, -1].numpy()


def generate(model, tokens, embeddings, n, stop):
    """Greedy token ids, at most n, without the stop token, by transformers' generate(); and each step's [vocab] logits."""
    import torch
    rows = spliced(model, tokens, embeddings)
    with torch.no_grad():
        out = model.generate(inputs_embeds=rows, attention_mask=torch.ones(rows.shape[:2], dtype=torch.long),
                             do_sample=False, max_new_tokens=n, eos_token_id=stop, pad_token_id=stop,
                             return_dict_in_generate=True, output_logits=True)
    ids = out.sequences[0].tolist()
    return ids[:ids.index(stop)] if stop in ids else ids, [row[0].numpy() for row in out.logits]


def synthetic_tiles(n, size, seed=0):
    """[n, s, s, 3] u8: noise (every pixel matters) and pictures with edges and slopes, in turn."""
    rng = np.random.default_rng(seed)
    tiles = np.empty((n, size, size, 3), np.uint8)
    y, x = np.mgrid[0:size, 0:size]
    for i in range(n):
        if i % 2 == 0:
            tiles[i] = rng.integers(0, 256, (size, size, 3))
            continue
        tiles[i] = np.stack([255 * x // size, 255 * y // size, 255 * (x + y) // (2 * size)], -1)
        for _ in range(12):
            x0, y0, r = rng.integers(0, size, 3)
            tiles[i][(x - x0) ** 2 + (y - y0) ** 2 < (r // 6) ** 2] = rng.integers(0, 256, 3)
    return tiles


def dump(model, folder, n_tiles, seed):
    import torch
    os.makedirs(folder, exist_ok=True)

    def save(name, value):
        value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        np.save(os.path.join(folder, name), np.ascontiguousarray(value))
        print(f"{name:16} {str(value.dtype):8} {list(value.shape)} mean {value.mean():.5f} std {value.std():.5f}")

    tiles = synthetic_tiles(n_tiles, model.config.vision_config.image_size[0], seed)
    save("tiles.npy", tiles), save("pixels.npy", pixels(tiles))
    tower, hooks = model.model.vision_tower, []
    hooks.append(tower.embeddings.register_forward_hook(lambda m, i, out: save("embedded.npy", out)))
    for k, layer in enumerate(tower.encoder.layer):
        hooks.append(layer.register_forward_hook(lambda m, i, out, k=k: save(f"layer_{k:02}.npy", out)))
    projector = model.model.multi_modal_projector
    hooks.append(projector.register_forward_pre_hook(lambda m, args: save("shuffled.npy", args[0])))
    embeddings = embed(model, tiles, n_tiles)
    for hook in hooks:
        hook.remove()
    save("embeddings.npy", embeddings)
    rng = np.random.default_rng(seed)
    tokens = np.concatenate([rng.integers(0, 151643, 50), [151665], np.full(len(embeddings), -1), [151666],
                             rng.integers(0, 151643, 80)]).astype(np.int32)
    save("lm_tokens.npy", tokens), save("lm_logits.npy", logits(model, tokens, embeddings))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint"), ap.add_argument("--dump", required=True)
    ap.add_argument("--tiles", type=int, default=2), ap.add_argument("--seed", type=int, default=0)
    args = ap.parse_args()
    dump(load(args.checkpoint), args.dump, args.tiles, args.seed)


if __name__ == "__main__":
    main()
