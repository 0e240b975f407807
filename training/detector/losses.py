"""What the detector is taught: boxes (L1, generalised IoU) and, for each token of the text, whether it names the object.

Everything runs on the device without waiting for it. Targets are padded: labels [B, N] int64, -1 for none, boxes [B, N, 4].
"""
import torch
from torch.nn import functional as F

ALPHA, GAMMA = 0.25, 2.0
WEIGHTS = {"class": 2.0, "l1": 5.0, "giou": 2.0}
FAR = 1e6  # the cost of what must not be matched
PER_OBJECT = 4  # vision tokens that learn one object


def corners(boxes):
    c, s = boxes[..., :2], boxes[..., 2:]
    return torch.cat((c - s / 2, c + s / 2), -1)


def giou(a, b):
    """Generalised IoU of boxes as cx, cy, w, h whose shapes broadcast, [..., 4] -> [...]"""
    a, b = corners(a), corners(b)
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    outer = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inner
    return inner / (union + 1e-7) - (outer - union) / (outer + 1e-7)


def focal(logits, target):
    """Sigmoid focal loss of each element."""
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid()
    # A target between 0 and 1 is approached from both sides, as quality focal loss has it.
    return torch.where(target > 0, ALPHA, 1 - ALPHA) * (target - p).abs() ** GAMMA * loss


@torch.no_grad()
def costs(logits, boxes, labels, wanted, label_map):
    """[B, Q, N]: what it costs that a query takes an object; FAR where there is no object."""
    p = logits.sigmoid()
    gain = ALPHA * (1 - p) ** GAMMA * -F.logsigmoid(logits) - (1 - ALPHA) * p ** GAMMA * -F.logsigmoid(-logits)
    mean = label_map / label_map.sum(-1, keepdim=True).clamp(min=1)
    by_label = gain @ mean.T  # [B, Q, labels]
    cost = WEIGHTS["class"] * by_label.gather(
        2, labels.clamp(min=0)[:, None].expand(-1, logits.shape[1], -1))
    cost = cost + WEIGHTS["l1"] * (boxes[:, :, None] - wanted[:, None]).abs().sum(-1)
    cost = cost - WEIGHTS["giou"] * giou(boxes[:, :, None], wanted[:, None])
    return torch.where((labels >= 0)[:, None], cost.nan_to_num(FAR / 2), FAR)


@torch.no_grad()
def match_one(cost):
    """[B, Q, N] -> [B, Q]: the object of each query or -1; one query an object, the cheapest pair first.

    Not the cheapest sum, as the Hungarian method gives: that one runs on the host, and with few objects that lie apart
    the two agree almost everywhere."""
    b, q, n = cost.shape
    cost, out = cost.clone(), torch.full((b, q), -1, dtype=torch.int64, device=cost.device)
    row = torch.arange(b, device=cost.device)
    for _ in range(min(q, n)):
        best, at = cost.flatten(1).min(1)
        query, thing = at // n, at % n
        out[row, query] = torch.where(best < FAR / 4, thing, out[row, query])
        cost[row, query] = FAR
        cost[row, :, thing] = FAR
    return out


@torch.no_grad()
def match_many(cost, k):
    """[B, S, N] -> [B, S]: the object of each token or -1; the k cheapest tokens of each object, the cheaper object where
    two want one token."""
    near = cost <= cost.topk(k, 1, largest=False)[0][:, -1:]
    best, thing = torch.where(near, cost, FAR).min(2)
    return torch.where(best < FAR / 4, thing, -1)


def taught(logits, boxes, match, labels, wanted, label_map, counted=None, certainty=None):
    """{class, l1, giou} of queries [B, Q] whose objects are `match`; counted: [B, Q] bool, which queries count at all;
    certainty: [labels], what the score of each label is to be (1 without it)."""
    found = match >= 0
    thing = match.clamp(min=0)
    label = labels.gather(1, thing)
    # A label that is not asked for in this text has an empty row: its object is none.
    target = label_map[label.clamp(min=0)] * found[..., None]
    found = found & (target.sum(-1) > 0)
    if certainty is not None:
        target = target * certainty[label.clamp(min=0)][..., None]
    n = found.sum().clamp(min=1)
    box = wanted.gather(1, thing[..., None].expand(-1, -1, 4))
    loss = focal(logits, target).sum(-1)
    if counted is not None:
        loss = loss * counted
    zero = boxes.new_zeros(())
    return {"class": loss.sum() / n,
            "l1": torch.where(found, (boxes - box).abs().sum(-1), zero).sum() / n,
            "giou": torch.where(found, 1 - giou(boxes, box), zero).sum() / n}


def noised(labels, wanted, groups, scale=0.5):
    """Denoising queries, contrastive as DINO's: for each group and object one box moved by less than `scale` of its half
    sides, to be put right, and one moved by up to twice that, to be told as none.
    -> (boxes [B, groups * 2 * N, 4], match [B, groups * 2 * N], counted likewise)"""
    b, n = labels.shape
    true = corners(wanted)[:, None].expand(-1, groups, -1, -1)
    half = wanted[..., 2:].repeat(1, 1, 2)[:, None] / 2
    there = (labels >= 0)[:, None].expand(-1, groups, -1)

    def moved(far):
        sign = torch.randint(0, 2, true.shape, device=true.device) * 2 - 1
        size = torch.rand(true.shape, device=true.device) + far
        box = (true + sign * size * half * scale).clamp(0, 1)
        low, high = torch.minimum(box[..., :2], box[..., 2:]), torch.maximum(box[..., :2], box[..., 2:])
        return torch.cat(((low + high) / 2, (high - low).clamp(min=1e-3)), -1)

    index = torch.arange(n, device=labels.device).expand(b, groups, -1)
    boxes = torch.stack((moved(0), moved(1)), 2)
    boxes = torch.where(there[:, :, None, :, None], boxes, torch.rand_like(boxes) * 0.5 + 0.25)
    match = torch.stack((torch.where(there, index, -1), torch.full_like(index, -1)), 2)
    return boxes.flatten(1, 3), match.flatten(1), torch.stack((there, there), 2).flatten(1)


def apart(n_queries, n_objects, groups, device):
    """[n, n] added to scores: the ordinary queries and each denoising group see themselves alone."""
    group = torch.arange(groups, device=device).repeat_interleave(2 * n_objects) + 1
    group = torch.cat((torch.zeros(n_queries, dtype=group.dtype, device=device), group))
    return torch.zeros(len(group), len(group), device=device).masked_fill(group[:, None] != group, float("-inf"))


def compute(model, pictures, targets, prompt, groups):
    """(losses by name, model's output). targets: [B, N, 5] as the feed has them."""
    labels, wanted = targets[..., 0].long(), targets[..., 1:]
    asked = prompt.map.sum(-1) > 0
    labels = torch.where((labels >= 0) & asked[labels.clamp(min=0)], labels, -1)
    wanted = torch.where((labels >= 0)[..., None], wanted, 0.5)
    q, extra, noise = model.net.config.num_queries, None, None
    if groups:
        noise = noised(labels, wanted, groups)
        extra = (noise[0], apart(q, labels.shape[1], groups, labels.device))
    out = model(pictures, prompt, extra)
    losses = {"class": 0.0, "l1": 0.0, "giou": 0.0}
    sums = {}

    def add(name, parts):
        for key, value in parts.items():
            sums[f"{name}_{key}"] = sums.get(f"{name}_{key}", 0.0) + value

    logits, boxes = out["enc_logits"], out["enc_boxes"]
    cost = costs(logits.detach(), boxes.detach(), labels, wanted, prompt.map)
    cost = torch.where(out["valid"][None, :, None], cost, FAR)
    match = match_many(cost, PER_OBJECT)
    # Tokens without a valid proposal are chosen from, too: they learn to be none.
    add("enc", taught(logits, boxes, match, labels, wanted, prompt.map, certainty=prompt.order))

    n_layers = len(out["layers"])
    # All layers at once: [layers * B, ...]
    with torch.no_grad():
        cost = torch.cat([costs(lg[:, :q].detach(), bx[:, :q].detach(), labels, wanted, prompt.map)
                          for lg, bx, _ in out["layers"]])
    matches = match_one(cost).view(n_layers, len(labels), q)
    for i, (logits, boxes, refined) in enumerate(out["layers"]):
        last = i == n_layers - 1
        add("last" if last else "dec", taught(logits[:, :q], boxes[:, :q], matches[i], labels, wanted, prompt.map))
        match, counted = matches[i], None
        if groups:
            add("noise", taught(logits[:, q:], boxes[:, q:], noise[1], labels, wanted, prompt.map, noise[2]))
            match = torch.cat((match, noise[1]), 1)
        if not last:
            # The boxes that the next layer begins with come from the state before its last norm: no other loss sees them.
            parts = taught(logits.detach(), refined, match, labels, wanted, prompt.map)
            add("next", {key: parts[key] for key in ("l1", "giou")})
    return sums, out


def total(losses):
    return sum(WEIGHTS[name.rsplit("_", 1)[1]] * value for name, value in losses.items())
