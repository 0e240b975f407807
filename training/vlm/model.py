"""The small InternVL (transformers' InternVLForConditionalGeneration) and its forward for training.

One clip's prefix is computed once for all its questions. The sequence is packed:

    [ prefix, padded to P tokens ][ question 1: S ][ question 2: S ] ... [ question Q: S ]

A question's tokens see the prefix and what stands before them in their own slot, with positions that go on behind the
prefix's last one: the numbers are those of one ordinary dialogue a question (tests/test_packed.py compares them). The heads beside the model
serve the auxiliary losses and are dropped at export.
"""
import json
import os

import torch
import torch.nn.functional as F
from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SIZES = {
    # vision: hidden, layers, heads, feed forward; text: hidden, layers, heads, heads of K and V, feed forward
    "small": dict(vision=(256, 5, 4, 1024), text=(256, 6, 4, 2, 640)),
    "tiny": dict(vision=(32, 4, 2, 64), text=(32, 4, 2, 1, 64)),  # to try the pipeline on a CPU
}
SIZE, PATCH, CONTEXT, THETA = 224, 14, 32768, 10000.0
TOKENS_PER_FRAME = (SIZE // PATCH // 2) ** 2


def config(size, vocab_size, image_token_id):
    from transformers import InternVLConfig
    v_hidden, v_layers, v_heads, v_ff = SIZES[size]["vision"]
    hidden, layers, heads, kv_heads, ff = SIZES[size]["text"]
    return InternVLConfig(
        image_token_id=image_token_id, image_seq_length=TOKENS_PER_FRAME, downsample_ratio=0.5,
        tie_word_embeddings=True,
        text_config=dict(model_type="qwen2", vocab_size=vocab_size, hidden_size=hidden, num_hidden_layers=layers,
                         num_attention_heads=heads, num_key_value_heads=kv_heads, intermediate_size=ff,
                         max_position_embeddings=CONTEXT, rms_norm_eps=1e-6, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": THETA}, use_sliding_window=False),
        vision_config=dict(hidden_size=v_hidden, num_hidden_layers=v_layers, num_attention_heads=v_heads,
                           intermediate_size=v_ff, image_size=[SIZE, SIZE], patch_size=[PATCH, PATCH],
                           use_qk_norm=False, attention_bias=True, norm_type="layer_norm", layer_norm_eps=1e-6,
                           hidden_act="gelu", layer_scale_init_value=1.0, use_absolute_position_embeddings=True))


def packed_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    """Attention over packed sequences; attention_mask [B, 1, Q * S, P + Q * S], 0 or -inf, is what the questions see.
    query [B, H, T, D], key and value [B, G, T, D] -> [B, T, H, D]. The prefix is causal; its padding stands behind it, so
    that nothing of it sees that."""
    # The rotation is computed in f32, so that under autocast query and key come wider than value.
    query, key = query.to(value.dtype), key.to(value.dtype)
    prefix = query.shape[2] - attention_mask.shape[2]
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    before = F.scaled_dot_product_attention(query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True,
                                            scale=scaling)
    behind = F.scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=attention_mask, scale=scaling)
    return torch.cat([before, behind], dim=2).transpose(1, 2), None


def build(size, vocab_size, image_token_id, seed=0):
    """A fresh model in f32."""
    from transformers import InternVLForConditionalGeneration
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    ALL_ATTENTION_FUNCTIONS.register("packed", packed_attention)
    torch.manual_seed(seed)
    configuration = config(size, vocab_size, image_token_id)
    configuration._attn_implementation = "sdpa"
    net = InternVLForConditionalGeneration(configuration).float()
    _initialise(net, configuration)
    return net


@torch.no_grad()
def _initialise(net, configuration):
    """Products keep about the size of what enters; those that write to the residual stream are scaled down by depth."""
    layers = {"vision": configuration.vision_config.num_hidden_layers, "text": configuration.text_config.num_hidden_layers}
    for name, p in net.named_parameters():
        depth = layers["vision" if "vision_tower" in name else "text"]
        if name.endswith("bias"):
            p.zero_()
        elif "embed_tokens" in name:
            p.normal_(0, 0.05)
        elif "patch_embeddings" in name:
            p.normal_(0, p[0].numel() ** -0.5)
        elif "position_embeddings" in name:
            p.copy_(_sin_cos(p.shape[1] - 1, p.shape[2]))
        elif "cls_token" in name:
            p.normal_(0, 0.02)
        elif p.ndim == 2:
            out = any(part in name for part in ("o_proj", "down_proj", "projection_layer", "fc2"))
            p.normal_(0, 0.7 * p.shape[1] ** -0.5 / ((2 * depth) ** 0.5 if out else 1))


def _sin_cos(n, width):
    """[1, 1 + n, width]: rows and columns as sines and cosines, 0 for the class token; a start for learned positions."""
    side = int(n ** 0.5)
    rate = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    table = torch.cat([f(place.flatten()[:, None] * rate) for place in (y, x) for f in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, table.shape[1]), 0.5 * table])[None]


class Heads(nn.Module):
    """Linear heads of the auxiliary losses. classes: what classes.json holds (targets.py)."""

    def __init__(self, width, segments, classes):
        super().__init__()
        n_answers = len(classes["answers"])
        self.sign = nn.Linear(width, 1 + len(classes["signs"]))
        self.light = nn.Linear(width, 1 + len(classes["lights"]))
        self.arrow = nn.Linear(width, 1 + len(classes["arrows"]))
        self.vehicle = nn.Linear(width, 4 * len(classes["vehicles"]))
        self.facts = nn.Linear(segments * width, sum(len(values) for values in classes["facts"].values()))
        self.norm = nn.ModuleDict({name: nn.LayerNorm(width) for name in ("retrieve", "right", "grid")})
        self.retrieve_mid, self.retrieve_end = nn.Linear(width, n_answers), nn.Linear(width, n_answers)
        self.right_mid, self.right_end = nn.Linear(width, 1), nn.Linear(width, 1)


class Packed(nn.Module):
    """net and heads; forward gives what the losses need, nothing of the vocabulary's size but at the wanted places."""

    def __init__(self, net, heads, image_token_id, n_slots, slot, fact_sizes, chunk):
        super().__init__()
        self.net, self.heads, self.slot, self.fact_sizes = net, heads, slot, fact_sizes
        self.image_token_id, self.chunk = image_token_id, chunk
        own = torch.block_diag(*[torch.ones(slot, slot).tril()] * n_slots).bool()
        self.register_buffer("own", own, persistent=False)
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD)[:, None, None], persistent=False)
        n_layers = len(net.model.language_model.layers)
        self.retrieve_at, self.right_at = n_layers // 2, n_layers - 1  # after so many layers

    def see(self, tiles):
        """[n, s, s, 3] u8 -> [n, tokens per frame, width], as get_image_features computes it."""
        model, side = self.net.model, SIZE // PATCH
        # The convolution over patches as one product, rows of channel, y, x as the kernel has them.
        pixels = (tiles.permute(0, 3, 1, 2).float() - self.mean) / self.std
        rows = pixels.reshape(-1, 3, side, PATCH, side, PATCH).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        tower = model.vision_tower
        kernel = tower.embeddings.patch_embeddings.projection
        seen = F.linear(rows, kernel.weight.flatten(1), kernel.bias).float()
        seen = torch.cat([tower.embeddings.cls_token.expand(len(seen), -1, -1), seen], dim=1)
        seen = seen + tower.embeddings.position_embeddings
        for layer in tower.encoder.layer:
            seen = layer(seen)
        seen = seen[:, 1:]
        seen = model.pixel_shuffle(seen.reshape(len(tiles), side, side, -1), scale_factor=0.5)
        return model.multi_modal_projector(seen.reshape(len(tiles), TOKENS_PER_FRAME, -1))

    def view(self, length, p, dtype):
        """[B, 1, Q * S, p + Q * S], 0 or -inf: what the questions' tokens see. length [B]: of the prefixes."""
        n = len(self.own)
        out = torch.zeros(len(length), 1, n, p + n, dtype=dtype, device=length.device)
        hidden = torch.arange(p, device=length.device) >= length[:, None]
        out[..., :p].masked_fill_(hidden[:, None, None], float("-inf"))
        out[..., p:].masked_fill_(~self.own, float("-inf"))
        return out

    def forward(self, tiles, prefix, length, suffix):
        """tiles [B, t, s, s, 3] u8, prefix [B, P] ids, of which length [B] count, suffix [B, Q, S] ids. (visual [B, t, 64,
        D], hidden after retrieve_at and right_at layers and at the end, each [B, Q, S, D]; the last one normalised.)"""
        language = self.net.model.language_model
        batch, n, p = len(tiles), suffix.shape[1], prefix.shape[1]
        # So many at a time, always the same number: one compiled encoder serves batches of all sizes.
        visual = torch.cat([self.see(part) for part in tiles.flatten(0, 1).split(self.chunk)])
        visual = visual.reshape(batch, -1, visual.shape[-1])
        text = language.embed_tokens(torch.cat([prefix, suffix.flatten(1)], dim=1))
        # The pictures' tokens stand in the order of the tiles.
        shown = prefix == self.image_token_id
        place = (shown.cumsum(1) - 1).clamp(min=0)
        pictures = visual.to(text.dtype).gather(1, place[..., None].expand(-1, -1, visual.shape[-1]))
        hidden = torch.cat([torch.where(shown[..., None], pictures, text[:, :p]), text[:, p:]], dim=1)
        visual = visual.reshape(batch, -1, TOKENS_PER_FRAME, visual.shape[-1])
        slot = self.slot
        dtype = torch.get_autocast_dtype(tiles.device.type) if torch.is_autocast_enabled(tiles.device.type) else text.dtype
        mask = self.view(length, p, dtype)
        behind = length[:, None] + torch.arange(slot, device=length.device).repeat(n)
        places = torch.cat([torch.arange(p, device=length.device).expand(batch, -1), behind], dim=1)
        rotary = language.rotary_emb(hidden, places)
        kept = {}
        for i, layer in enumerate(language.layers):
            hidden = layer(hidden, attention_mask=mask, position_ids=places, position_embeddings=rotary)
            kept[i + 1] = hidden
        final = language.norm(hidden)

        def slots(x):
            return x[:, p:].reshape(batch, n, slot, -1)

        return visual, slots(kept[self.retrieve_at]), slots(kept[self.right_at]), slots(final)

    def logits(self, hidden):
        return F.linear(hidden, self.net.model.language_model.embed_tokens.weight)


def packed(size, lines, classes, segments=4, chunk=384, seed=0):
    """The model with everything around it, for the tokenizer and dialogue `lines` (dialogue.Dialogue)."""
    vocab = -(-lines.tokenizer.get_vocab_size() // 64) * 64
    image_token_id = lines.id["<IMG_CONTEXT>"]
    net = build(size, vocab, image_token_id, seed)
    net.model.language_model.config._attn_implementation = "packed"
    heads = Heads(net.config.text_config.hidden_size, segments, classes)
    return Packed(net, heads, image_token_id, classes["questions"], classes["slot"],
                  [len(values) for values in classes["facts"].values()], chunk)


# Weights travel as f16 in files of at most 16 MiB: the encoder, the language model, the heads.
FILES = {"vision": "model-vision.safetensors", "text": "model-text.safetensors", "heads": "heads.safetensors"}


def _part(name):
    return "heads" if name.startswith("heads.") else "text" if "language_model" in name else "vision"


def save(model, folder, about):
    """about: what the configuration file says beside the sizes. A file under its name is a whole one."""
    from safetensors.torch import save_file
    os.makedirs(folder, exist_ok=True)
    parts = {part: {} for part in FILES}
    for name, tensor in model.named_parameters():
        parts[_part(name)][name] = tensor.detach().half().cpu().contiguous()
    for part, tensors in parts.items():
        path = os.path.join(folder, FILES[part])
        save_file(tensors, path + ".part", metadata={"format": "pt"})
        os.replace(path + ".part", path)
    path = os.path.join(folder, "model.json")
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(about, file, ensure_ascii=False, indent=1)
    os.replace(path + ".part", path)


def load(model, folder):
    """Loads what save() wrote, or the f16 GGUF files made of it, which hold no heads. The model's own tensors must all fit;
    heads that are not there or whose classes have changed start afresh: their names are given back."""
    from safetensors.torch import load_file
    from . import gguf
    own, read = dict(model.named_parameters()), {}
    if os.path.exists(os.path.join(folder, FILES["vision"])):
        for file in FILES.values():
            path = os.path.join(folder, file)
            if file != FILES["heads"] or os.path.exists(path):
                read.update(load_file(path))
    else:
        read = gguf.tensors(folder)
    for name, tensor in read.items():
        if name in own and own[name].numel() == tensor.numel() and (
                own[name].shape == tensor.shape or _part(name) != "heads"):
            parameter = own.pop(name)
            parameter.data.copy_(tensor.float().reshape(parameter.shape))
        elif _part(name) != "heads":
            raise SystemExit(f"{folder}: '{name}' {list(tensor.shape)} does not fit the model")
    missing = [name for name in own if _part(name) != "heads"]
    if missing:
        raise SystemExit(f"{folder}: no {missing[0]} and {len(missing) - 1} more")
    return sorted(own)
