"""The small Grounding DINO: transformers' own classes, and the forward that training needs.

transformers' forward has no place for denoising queries and waits for the device in every layer (it checks shapes there),
so training calls the same modules in the same order by itself; tests/test_detector.py finds both equal. All pictures of a
batch have one size and no padding, so that no mask is needed.

Shapes: B pictures, S vision tokens of all levels, T text tokens, Q queries, d = d_model. Boxes are cx, cy, w, h, each in
units of the picture's side.
"""
import copy
import json
import math
import os
import shutil

import torch
from torch import nn
from torch.nn import functional as F

from . import vocabulary

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Frames are 16:9; 252 makes 448x252 of all of them: maps of 112x63, 56x32, 28x16 and 14x8.
SHORTEST_EDGE, LONGEST_EDGE = 252, 800
WIDTH, HEIGHT = 448, 252
SIZES = {
    "small": dict(swin=dict(embed_dim=48, depths=[1, 2, 4], num_heads=[2, 3, 6], window_size=8, out_indices=[2, 3]),
                  bert=dict(hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256),
                  d_model=128, num_queries=80, num_feature_levels=3, encoder_layers=2, decoder_layers=3,
                  encoder_ffn_dim=256, decoder_ffn_dim=512),
    "tiny": dict(swin=dict(embed_dim=16, depths=[1, 1, 2], num_heads=[1, 2, 4], window_size=8, out_indices=[2, 3]),
                 bert=dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64),
                 d_model=64, num_queries=40, num_feature_levels=3, encoder_layers=1, decoder_layers=2,
                 encoder_ffn_dim=64, decoder_ffn_dim=128),
}


def configuration(size):
    from transformers import BertConfig, GroundingDinoConfig, SwinConfig
    sizes = {key: dict(value) if isinstance(value, dict) else value for key, value in SIZES[size].items()}
    swin = SwinConfig(drop_path_rate=0.0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes.pop("swin"))
    bert = BertConfig(vocab_size=vocabulary.SIZE, max_position_embeddings=64, hidden_dropout_prob=0.0,
                      attention_probs_dropout_prob=0.0, **sizes.pop("bert"))
    return GroundingDinoConfig(backbone_config=swin, text_config=bert, dropout=0.0, attention_dropout=0.0,
                               activation_dropout=0.0, fusion_droppath=0.0, fusion_dropout=0.0, text_enhancer_dropout=0.0,
                               two_stage_bbox_embed_share=False, **sizes)


def build(size, seed=0):
    """The network with weights by chance, in f32."""
    from transformers import GroundingDinoForObjectDetection
    torch.manual_seed(seed)
    net = GroundingDinoForObjectDetection(configuration(size))
    share_box_heads(net)
    with torch.no_grad():
        for name, module in net.named_modules():
            # transformers draws with a deviation of 0.02, meant for wide layers; ours are narrow.
            if isinstance(module, nn.Linear) and not name.endswith(("sampling_offsets", "attention_weights")) \
                    and not ("bbox_embed" in name and name.endswith("layers.2")):
                nn.init.xavier_uniform_(module.weight)
        start_at_nothing(net.model)
    return net


def share_box_heads(net):
    """One box head for all decoder layers, as decoder_bbox_embed_share says."""
    for i in range(len(net.bbox_embed)):
        net.bbox_embed[i] = net.bbox_embed[0]
        net.model.decoder.bbox_embed[i] = net.bbox_embed[0]


def start_at_nothing(m):
    """Scores are products of two normalised vectors, without a bias: some 0 +- sqrt(d) at first, half of all queries
    certain of half of all words. One channel, large in the text and negative in the states, and small text vectors
    otherwise make every score sigmoid(-4) at first."""
    text = m.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    text.weight.fill_(0.1), text.bias.zero_()
    text.bias[0] = 4.0
    for norm in (m.decoder.layer_norm, m.enc_output_norm):
        norm.weight[0], norm.bias[0] = 0.0, -1.0
    for layer in m.encoder.layers:  # 1e-4 is for weights that were trained before
        layer.fusion_layer.vision_param.fill_(0.1), layer.fusion_layer.text_param.fill_(0.1)


def logit(x):
    return torch.special.logit(x, eps=1e-5)


def sine(x, n, temperature):
    """[...] -> [..., n]: sine and cosine in turn, of x times 2 pi."""
    i = torch.arange(n, dtype=torch.float32, device=x.device)
    angle = x[..., None] * (2 * math.pi) / temperature ** (2 * torch.div(i, 2, rounding_mode="floor") / n)
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), -1).flatten(-2)


def deformable(module, query, position, memory, reference, geometry):
    """query, position: [B, n, d], memory: [B, S, d], reference: [B or 1, n, 2 or 4] -> [B, n, d]"""
    hidden = query + position
    b, n, d = hidden.shape
    heads, levels, points = module.n_heads, module.n_levels, module.n_points
    value = module.value_proj(memory).view(b, -1, heads, d // heads).permute(0, 2, 3, 1).flatten(0, 1)
    offset = module.sampling_offsets(hidden).view(b, n, heads, levels, points, 2)
    weight = module.attention_weights(hidden).view(b, n, heads, levels * points).softmax(-1)
    place = reference[:, :, None, None, None, :2]
    if reference.shape[-1] == 2:
        place = place + offset / geometry.extent[:, None, :]
    else:
        place = place + offset / points * reference[:, :, None, None, None, 2:] * 0.5
    grid = (2 * place - 1).permute(0, 2, 1, 3, 4, 5).flatten(0, 1)  # [B * heads, n, levels, points, 2]
    sampled, begin = [], 0
    for level, (h, w) in enumerate(geometry.shapes):
        part = value[:, :, begin:begin + h * w].unflatten(2, (h, w))
        sampled.append(F.grid_sample(part.to(grid.dtype), grid[:, :, level], mode="bilinear", padding_mode="zeros",
                                     align_corners=False))
        begin += h * w
    weight = weight.transpose(1, 2).flatten(0, 1)[:, None]  # [B * heads, 1, n, levels * points]
    mixed = (torch.cat(sampled, -1) * weight).sum(-1).view(b, d, n)
    return module.output_proj(mixed.transpose(1, 2))


class Geometry:
    """What follows from the sizes of the levels alone."""

    def __init__(self, shapes, config, device):
        self.shapes = shapes
        self.extent = torch.tensor([[w, h] for h, w in shapes], dtype=torch.float32, device=device)
        position, reference, size = [], [], []
        for level, (h, w) in enumerate(shapes):
            y, x = torch.meshgrid(torch.arange(h, device=device, dtype=torch.float32),
                                  torch.arange(w, device=device, dtype=torch.float32), indexing="ij")
            n, t = config.d_model // 2, config.positional_embedding_temperature
            position.append(torch.cat((sine((y + 1) / (h + 1e-6), n, t), sine((x + 1) / (w + 1e-6), n, t)), -1)
                            .flatten(0, 1))
            reference.append(torch.stack(((x + 0.5) / w, (y + 0.5) / h), -1).flatten(0, 1))
            size.append(torch.full((h * w, 2), 0.05 * 2.0 ** level, device=device))
        self.position, self.reference = position, torch.cat(reference)[None]  # [h * w, d] each; [1, S, 2]
        proposal = torch.cat((torch.cat(reference), torch.cat(size)), -1)
        self.valid = ((proposal > 0.01) & (proposal < 0.99)).all(-1)  # [S]
        # A proposal that is not valid has a box of 1, 1, 1, 1 whatever is added to it.
        self.proposal = torch.where(self.valid[:, None], torch.log(proposal / (1 - proposal)), 50.0)[None]


class Prompt:
    """The text of some labels, as tensors."""

    def __init__(self, labels, device):
        tokens, spans = vocabulary.encode(labels)
        sees, position = vocabulary.text_layout(tokens)
        self.tokens = torch.tensor([tokens], device=device)
        self.sees = torch.tensor([sees], device=device)  # [1, T, T] bool
        self.position = torch.tensor([position], device=device)
        # [labels, T]: 1 at the tokens of each of vocabulary.LABELS; a row of zeros for one that is not asked for
        self.map = torch.zeros(len(vocabulary.LABELS), len(tokens), device=device)
        for label, (begin, end) in zip(labels, spans):
            self.map[vocabulary.LABELS.index(label), begin:end] = 1
        # [labels]: what the encoder's score of each is to be
        self.order = torch.tensor([vocabulary.FIRST.get(label, vocabulary.LATER) for label in vocabulary.LABELS],
                                  device=device)


class Detector(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)
        self.geometries = {}

    def normalise(self, pictures):
        """u8 [B, height, width, 3] -> f32 [B, 3, height, width]"""
        return (pictures.permute(0, 3, 1, 2).float() * (1 / 255) - self.mean) / self.std

    def text(self, prompt):
        m = self.net.model
        hidden = m.text_backbone(input_ids=prompt.tokens, attention_mask=prompt.sees[:, None],
                                 token_type_ids=torch.zeros_like(prompt.tokens), position_ids=prompt.position)
        return m.text_projection(hidden.last_hidden_state)

    def vision(self, pixels):
        """-> (tokens [B, S, d], positions [1, S, d], Geometry)"""
        m = self.net.model
        maps = list(m.backbone.conv_encoder.model(pixels).feature_maps)
        last, levels = maps[-1], []
        for i, project in enumerate(m.input_proj_vision):
            levels.append(project(maps[i] if i < len(maps) else last if i == len(maps) else levels[-1]))
        shapes = tuple(tuple(level.shape[-2:]) for level in levels)
        if shapes not in self.geometries:
            self.geometries[shapes] = Geometry(shapes, self.net.config, pixels.device)
        geometry = self.geometries[shapes]
        position = torch.cat([p + m.level_embed[i] for i, p in enumerate(geometry.position)])[None]
        return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1), position, geometry

    def encode(self, vision, position, geometry, text, prompt):
        """-> (vision [B, S, d], text [B, T, d])"""
        d = self.net.config.d_model
        text = text.expand(len(vision), -1, -1)
        text_position = sine(prompt.position.float(), d, 10000)
        hidden = torch.zeros(prompt.sees.shape, device=text.device).masked_fill(~prompt.sees, torch.finfo(text.dtype).min)
        for layer in self.net.model.encoder.layers:
            (vision, _), (text, _) = layer.fusion_layer(vision, text)
            text, _ = layer.text_enhancer_layer(text, hidden[:, None], text_position)
            deform = layer.deformable_layer
            vision = deform.self_attn_layer_norm(
                vision + deformable(deform.self_attn, vision, position, vision, geometry.reference, geometry))
            vision = deform.final_layer_norm(vision + deform.fc2(F.relu(deform.fc1(vision))))
        return vision, text

    def propose(self, vision, text, geometry):
        """-> (logits [B, S, T], boxes as logits [B, S, 4]) of every vision token"""
        m = self.net.model
        hidden = m.enc_output_norm(m.enc_output(vision * geometry.valid[None, :, None]))
        return hidden @ text.transpose(1, 2), m.encoder_output_bbox_embed(hidden) + geometry.proposal

    def decode(self, content, reference, vision, text, geometry, mask=None):
        """content: [B, n, d], reference: boxes [B, n, 4], mask: [n, n], added to the scores of self-attention
        -> a list of (logits [B, n, T], boxes [B, n, 4], the boxes that the next layer starts from [B, n, 4])"""
        m, out, hidden = self.net.model.decoder, [], content
        n = self.net.config.d_model // 2
        for layer, head in zip(m.layers, self.net.bbox_embed):
            x, y, w, h = reference.unbind(-1)
            position = m.reference_points_head(torch.cat([sine(v, n, 10000) for v in (y, x, w, h)], -1))
            moved = hidden + position
            hidden = layer.self_attn_layer_norm(hidden + layer.self_attn(moved, moved, hidden, mask)[0])
            hidden = layer.encoder_attn_text_layer_norm(
                hidden + layer.encoder_attn_text(hidden + position, text, text)[0])
            hidden = layer.encoder_attn_layer_norm(
                hidden + deformable(layer.encoder_attn, hidden, position, vision, reference, geometry))
            hidden = layer.final_layer_norm(hidden + layer.fc2(F.relu(layer.fc1(hidden))))
            normed = m.layer_norm(hidden)
            before = logit(reference)
            refined = (head(hidden) + before).sigmoid()
            out.append((normed @ text.transpose(1, 2), (head(normed) + before).sigmoid(), refined))
            reference = refined.detach()
        return out

    def forward(self, pictures, prompt, extra=None):
        """pictures: u8 [B, height, width, 3]; extra: None or (boxes [B, n, 4], mask [Q + n, Q + n]) of further queries
        -> dict with enc_logits, enc_boxes (of all vision tokens), layers (decode()'s list, Q + n queries)"""
        vision, position, geometry = self.vision(self.normalise(pictures))
        vision, text = self.encode(vision, position, geometry, self.text(prompt), prompt)
        # From here on few numbers, and places that hang on each bit of them.
        with torch.autocast(pictures.device.type, enabled=False):
            vision, text = vision.float(), text.float()
            logits, boxes = self.propose(vision, text, geometry)
            q = self.net.config.num_queries
            chosen = logits.detach().max(-1)[0].topk(q, 1)[1]
            reference = boxes.detach().gather(1, chosen[..., None].expand(-1, -1, 4)).sigmoid()
            content, mask = self.net.model.query_position_embeddings.weight, None
            if extra is not None:
                more, mask = extra
                reference = torch.cat((reference, more), 1)
                # The same contents again: a denoising query does what an ordinary one does.
                content = torch.cat((content, content.repeat(-(-more.shape[1] // q), 1)[:more.shape[1]]))
            layers = self.decode(content.expand(len(vision), -1, -1), reference, vision, text, geometry, mask)
        return {"enc_logits": logits, "enc_boxes": boxes.sigmoid(), "layers": layers, "valid": geometry.valid}


FILES = ("model.safetensors", "config.json")


def save(net, folder, about):
    """A checkpoint under the published names, f16; about: what model.json says. A file under its name is a whole one."""
    part = os.path.join(folder, "part")
    copy.deepcopy(net).half().cpu().save_pretrained(part)
    with open(os.path.join(part, "model.json"), "w", encoding="utf-8") as file:
        json.dump(about, file, ensure_ascii=False, indent=1)
    for name in (*FILES, "model.json"):
        os.replace(os.path.join(part, name), os.path.join(folder, name))
    shutil.rmtree(part)


def load(folder):
    """The network that save() wrote, in f32."""
    from transformers import GroundingDinoForObjectDetection
    net, seen = GroundingDinoForObjectDetection.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    # transformers fills what is missing by chance and says so only here; copies of the box head are not in the file.
    missing = [name for name in seen["missing_keys"] if "bbox_embed" not in name]
    if missing or seen["unexpected_keys"] or seen["mismatched_keys"]:
        raise SystemExit(f"{folder}: {missing or seen['unexpected_keys'] or seen['mismatched_keys']} do not fit the model")
    share_box_heads(net)
    return net.eval()
