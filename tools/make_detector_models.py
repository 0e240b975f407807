#!/usr/bin/env python3
"""Writes small random Grounding DINO checkpoints as the published ones are laid out, and what transformers computes.

    make_detector_models.py OUT_DIR [--kind a|b|all] [--seed N] [--bert-vocab ggml-vocab-bert-bge.gguf]

OUT_DIR/<kind>/hf/ is the checkpoint (config.json, model.safetensors, preprocessor_config.json, vocab.txt), from which
`lowbeam convert` makes a GGUF.
OUT_DIR/<kind>/ref/<case>/ holds a case: sizes.npy [n,2] (width, height), image_<i>.npy [h,w,3] u8, tokens.npy [t] i32,
and one .npy of each intermediate, batch first, fastest axis last (tests/checks/check_detector.py lists them).

a  window 7 as in Swin-T, 4 levels, boxes' heads shared as in the published models, 20 queries
b  window 5, 5 levels (two above the backbone's maps), a box head of its own in each decoder layer, 40 queries

The vocabulary is [PAD], [CLS], [SEP], '.', '?' at BERT's ids and made-up words elsewhere, or BERT's own 30,522 words from
llama.cpp's models/ggml-vocab-bert-bge.gguf. Needs numpy, torch, transformers (5.23 is the version compared with).
"""
import argparse
import json
import os

import numpy as np
import torch
from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

import gguf_file

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLS, SEP, STOP, QUESTION = 101, 102, 1012, 1029
N_VOCAB = 1100
KINDS = {
    "a": dict(swin=dict(embed_dim=16, depths=[1, 2, 2, 1], num_heads=[1, 2, 2, 4], window_size=7),
              bert=dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96),
              d_model=32, num_queries=20, encoder_layers=2, decoder_layers=3, encoder_ffn_dim=64, decoder_ffn_dim=48,
              encoder_attention_heads=4, decoder_attention_heads=4, max_text_len=32),
    "b": dict(swin=dict(embed_dim=24, depths=[2, 1, 2, 2], num_heads=[2, 4, 4, 8], window_size=5),
              bert=dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128),
              d_model=64, num_queries=40, encoder_layers=3, decoder_layers=2, encoder_ffn_dim=128, decoder_ffn_dim=128,
              encoder_attention_heads=8, decoder_attention_heads=4, max_text_len=24, num_feature_levels=5,
              encoder_n_points=2, decoder_n_points=3, decoder_bbox_embed_share=False),
}
# (width, height) of each picture of a batch. The first case of a batch of two is padded in both ways.
CASES = {"one": [(150, 113)], "wide": [(301, 96)], "two": [(133, 101), (97, 160)], "equal": [(128, 96), (128, 96)]}
# car. traffic light? person - then words that no full stop closes; the second has an empty phrase
TEXTS = {"one": [CLS, 500, STOP, 501, 502, QUESTION, 503, 504, 505, STOP, SEP],
         "wide": [CLS, STOP, 300, 301, STOP, 302, SEP],
         "two": [CLS, 700, 701, STOP, 702, STOP, SEP],
         "equal": [CLS] + [400 + i for i in range(9)] + [STOP] + [500 + i for i in range(8)] + [STOP, 600, STOP, SEP]}


def build(kind, seed, n_vocab):
    sizes = dict(KINDS[kind])
    swin = SwinConfig(out_indices=[2, 3, 4], **sizes.pop("swin"))
    bert = BertConfig(vocab_size=n_vocab, max_position_embeddings=64, **sizes.pop("bert"))
    torch.manual_seed(seed)
    model = GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin, text_config=bert, **sizes)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            randomize(name, p)
    return model


def randomize(name, p):
    """Every bias, norm and table is random: one that is left out or swapped shows. Sizes that keep activations near 1."""
    noise = torch.randn_like(p)
    if "sampling_offsets.bias" in name:
        p.add_(0.5 * noise)  # the star of directions stays, moved: samples lie between pixels and beyond the edges
    elif "sampling_offsets.weight" in name:
        p.copy_(1.5 * noise / p.shape[1] ** 0.5)
    elif name.endswith(("vision_param", "text_param")):
        p.copy_(0.5 + 0.2 * noise)
    elif "relative_position_bias_table" in name or "embed" in name and "embeddings.norm" not in name and p.dim() == 2 \
            and "bbox" not in name and "projection" not in name:
        p.copy_(0.5 * noise)
    elif "norm" in name.lower() or name.startswith("model.input_proj_vision") and ".1." in name:
        p.copy_(1.0 + 0.2 * noise if name.endswith("weight") else 0.2 * noise)
    elif p.dim() > 1:
        p.copy_(noise / np.prod(p.shape[1:]) ** 0.5)
    else:
        p.copy_(0.2 * noise)


def case(model, name, seed):
    """Inputs and every intermediate of one batch, as transformers computes them. [name -> array]"""
    rng = np.random.default_rng(seed)
    sizes, config = CASES[name], model.config
    width, height = (max(s[i] for s in sizes) for i in (0, 1))
    pixels, mask = np.zeros((len(sizes), 3, height, width), np.float32), np.zeros((len(sizes), height, width), np.int64)
    out = {"sizes": np.array(sizes, np.int32), "tokens": np.array(TEXTS[name], np.int32)}
    for i, (w, h) in enumerate(sizes):
        y, x = np.mgrid[0:h, 0:w]
        image = np.stack([127 + 100 * np.sin(x / rng.uniform(3, 40) + y / rng.uniform(3, 40)) for _ in range(3)], -1)
        image = np.clip(image + rng.normal(0, 25, image.shape), 0, 255).astype(np.uint8)
        out[f"image_{i}"] = image
        pixels[i, :, :h, :w] = (((image * (1 / 255)).astype(np.float32) - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)
        mask[i, :h, :w] = 1
    seen = {}

    def keep(key, pick=lambda y: y):
        return lambda module, args, y: seen.setdefault(key, []).append(pick(y))

    m, hooks = model.model, []
    for i, layer in enumerate(m.text_backbone.encoder.layer):
        hooks.append(layer.register_forward_hook(keep(f"bert_{i}", lambda y: y[0] if isinstance(y, tuple) else y)))
    hooks.append(m.text_projection.register_forward_hook(keep("text")))
    hooks.append(m.backbone.conv_encoder.register_forward_hook(keep("maps")))
    hooks.append(m.encoder.register_forward_pre_hook(
        lambda module, args, kw: seen.setdefault("encoder_in", []).append(kw), with_kwargs=True))
    for i, layer in enumerate(m.encoder.layers):
        hooks.append(layer.fusion_layer.register_forward_hook(keep(f"fusion_{i}")))
        hooks.append(layer.register_forward_hook(keep(f"encoder_{i}")))
    for i, layer in enumerate(m.decoder.layers):
        hooks.append(layer.register_forward_hook(keep(f"decoder_{i}", lambda y: y[0])))
    tokens = torch.tensor([TEXTS[name]] * len(sizes))
    with torch.no_grad():
        result = model(pixel_values=torch.from_numpy(pixels), input_ids=tokens, pixel_mask=torch.from_numpy(mask))
    for hook in hooks:
        hook.remove()

    n_text = min(len(TEXTS[name]), config.max_text_len)
    for i in range(config.text_config.num_hidden_layers):
        out[f"bert_{i}"] = seen[f"bert_{i}"][0][:1]
    out["text"] = seen["text"][0][:1]
    for i, (feature, level_mask) in enumerate(seen["maps"][0]):
        out[f"map_{i}"] = feature.flatten(2).transpose(1, 2)
    inputs = seen["encoder_in"][0]
    out["projected"] = inputs["vision_features"]
    out["position"] = inputs["vision_position_embedding"]
    out["valid"] = (~inputs["vision_attention_mask"]).int()
    for i in range(config.encoder_layers):
        (vision, _), (text, _) = seen[f"fusion_{i}"][0]
        out[f"fusion_vision_{i}"], out[f"fusion_text_{i}"] = vision, text
        (vision, text), _ = seen[f"encoder_{i}"][0]
        out[f"encoder_vision_{i}"], out[f"encoder_text_{i}"] = vision, text
    scores = result.enc_outputs_class.max(-1)[0]
    out["scores"] = scores
    out["chosen"] = torch.topk(scores, config.num_queries, dim=1)[1].int()
    out["reference_0"] = result.init_reference_points
    for i in range(config.decoder_layers):
        out[f"decoder_{i}"] = seen[f"decoder_{i}"][0]
        out[f"reference_{i + 1}"] = result.intermediate_reference_points[:, i]
        reference = out[f"reference_{i}"]
        hidden = result.intermediate_hidden_states[:, i]
        text = result.encoder_last_hidden_state_text
        out[f"boxes_{i}"] = (model.bbox_embed[i](hidden) + torch.special.logit(reference, eps=1e-5)).sigmoid().detach()
        out[f"logits_{i}"] = model.class_embed[i](hidden, text, torch.ones_like(tokens[:, :n_text]).bool())[..., :n_text]
    last = config.decoder_layers - 1
    out["logits"], out["boxes"] = result.logits[..., :n_text], result.pred_boxes
    assert torch.equal(out["boxes"], out[f"boxes_{last}"])
    return {key: np.ascontiguousarray(value.numpy() if isinstance(value, torch.Tensor) else value)
            for key, value in out.items()}


def vocabulary(path):
    if path:
        # llama.cpp writes U+2581 before a piece that begins a word, and nothing where vocab.txt has "##"
        tokens = gguf_file.read_pairs(path)["tokenizer.ggml.tokens"][1][1]
        return [t[1:] if t.startswith("\u2581") else t if t[:1] == "[" and t[-1:] == "]" and len(t) > 1 else "##" + t
                for t in tokens]
    words = [f"w{i}" for i in range(N_VOCAB)]
    for at, word in ((0, "[PAD]"), (100, "[UNK]"), (CLS, "[CLS]"), (SEP, "[SEP]"), (STOP, "."), (QUESTION, "?")):
        words[at] = word
    return words


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--kind", default="all", choices=[*KINDS, "all"])
    ap.add_argument("--seed", type=int, default=7)
    ap.add_argument("--bert-vocab")
    args = ap.parse_args()
    words = vocabulary(args.bert_vocab)
    for kind in KINDS if args.kind == "all" else [args.kind]:
        folder = os.path.join(args.out, kind)
        hf = os.path.join(folder, "hf")
        os.makedirs(hf, exist_ok=True)
        model = build(kind, args.seed, len(words))
        model.save_pretrained(hf)
        with open(os.path.join(hf, "vocab.txt"), "w", encoding="utf-8") as file:
            file.write("".join(word + "\n" for word in words))
        with open(os.path.join(hf, "preprocessor_config.json"), "w") as file:
            json.dump({"do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True, "format": "coco_detection",
                       "image_mean": MEAN, "image_processor_type": "GroundingDinoImageProcessor", "image_std": STD,
                       "resample": 2, "rescale_factor": 1 / 255, "size": {"longest_edge": 1333, "shortest_edge": 800}},
                      file, indent=1)
        for i, name in enumerate(CASES):
            ref = os.path.join(folder, "ref", name)
            os.makedirs(ref, exist_ok=True)
            for key, value in case(model, name, args.seed + i).items():
                np.save(os.path.join(ref, key + ".npy"), value)


if __name__ == "__main__":
    main()
