"""The losses, and the accuracy that goes with them."""
import torch
import torch.nn.functional as F

from .targets import MARKS, SEGMENTS

# What each loss counts for beside the letter's 1. All but the letter's and the end's fall in the last quarter.
WEIGHTS = {"letter": 1.0, "end": 0.1, "retrieve": 1.0, "right": 0.5, "sign": 0.5, "light": 0.3, "arrow": 0.3,
           "vehicle": 0.5, "facts": 0.1}
MAIN = ("letter", "end")


def _at(hidden, place):
    """hidden [B, Q, S, D] at place [B, Q] or [B, Q, K] -> [B, Q, (K,) D]; places below 0 give the first."""
    flat = place.reshape(*place.shape[:2], -1).clamp(min=0)
    taken = hidden.gather(2, flat[..., None].expand(-1, -1, -1, hidden.shape[-1]))
    return taken.reshape(*place.shape, hidden.shape[-1])


def _mean(values, mask):
    return (values * mask).sum() / mask.sum().clamp(min=1)


def _balanced(loss, wanted):
    """Cells with something and empty ones count half each, however few the former are; ignored ones (below 0) nothing."""
    return 0.5 * (_mean(loss, (wanted > 0).float()) + _mean(loss, (wanted == 0).float()))


def compute(model, batch_tiles, records, end_id):
    """(losses by name, outputs for accuracy): scalars in f32."""
    r = {name: tensor.long() for name, tensor in records.items()}
    visual, middle, late, final = model(batch_tiles, r["prefix"], r["length"], r["suffix"])
    heads, asked = model.heads, (r["n"] > 0).float()
    out, losses = {}, {}

    last = (r["n"] - 1).clamp(min=0)
    two = torch.stack([last, last + 1], dim=-1)
    logits = model.logits(_at(final, two)).float()
    out["logits"] = logits[:, :, 0]
    losses["letter"] = _mean(F.cross_entropy(logits[:, :, 0].flatten(0, 1), r["letter"].flatten(), reduction="none")
                             .view_as(asked), asked)
    losses["end"] = _mean(-F.log_softmax(logits[:, :, 1], -1)[..., end_id], asked)

    answer, known = r["answer"].clamp(min=0), asked * (r["answer"] >= 0)
    kinds = (heads.retrieve_mid(heads.norm["retrieve"](_at(middle, r["ask_at"]))),
             heads.retrieve_end(_at(final, r["ask_at"])))
    losses["retrieve"] = sum(_mean(F.cross_entropy(x.float().flatten(0, 1), answer.flatten(), reduction="none")
                                   .view_as(asked), known) for x in kinds) / 2
    out["retrieved"] = kinds[1]

    there = (r["choice_at"] >= 0).float() * asked[..., None]
    truth = F.one_hot(r["right"], there.shape[-1]).float()
    judged = (heads.right_mid(heads.norm["right"](_at(late, r["choice_at"])))[..., 0],
              heads.right_end(_at(final, r["choice_at"]))[..., 0])
    losses["right"] = sum(_mean(F.binary_cross_entropy_with_logits(x.float(), truth, reduction="none"), there)
                          for x in judged) / 2

    seen = heads.norm["grid"](visual)
    for name in MARKS:
        wanted = r[name]
        guess = getattr(heads, name)(seen).float()
        each = F.cross_entropy(guess.flatten(0, 2), wanted.clamp(min=0).flatten(), reduction="none").view(wanted.shape)
        losses[name] = _balanced(each, wanted)
        out[name] = guess
    wanted = r["vehicle"]  # [B, t, cells, types], 0 to 3 of each
    guess = heads.vehicle(seen).float().view(*wanted.shape, 4)
    each = F.cross_entropy(guess.flatten(0, 3), wanted.clamp(min=0).flatten(), reduction="none").view(wanted.shape)
    losses["vehicle"] = _balanced(each, wanted)

    # [B, segments, t]: which tiles show a quarter of the clip whole, each quarter's sum being 1
    part = (r["segment"][:, None] == torch.arange(SEGMENTS, device=visual.device)[:, None]).float()
    part = part / part.sum(-1, keepdim=True).clamp(min=1)
    guess = heads.facts((part @ seen.float().mean(2)).flatten(1)).float()
    parts, at = [], 0
    for i, size in enumerate(model.fact_sizes):
        wanted = r["facts"][:, i]
        each = F.cross_entropy(guess[:, at:at + size], wanted.clamp(min=0), reduction="none")
        parts.append(_mean(each, (wanted >= 0).float()))
        at += size
    losses["facts"] = sum(parts) if parts else guess.sum() * 0
    return losses, out


def total(losses, fall):
    """fall: what the auxiliary losses count for now, 1 to 0."""
    return sum(WEIGHTS[name] * (1 if name in MAIN else fall) * loss for name, loss in losses.items())


@torch.no_grad()
def hits(out, records, letters, n_mixes, n_kinds):
    """[n_mixes, n_kinds, 4] f32 sums: questions; right letter of all tokens; right among the choices' letters; right text
    retrieved. letters: ids of A, B, C, D."""
    r = {name: tensor.long() for name, tensor in records.items()}
    asked = (r["n"] > 0) & (r["kind"] >= 0)
    logits = out["logits"]
    whole = logits.argmax(-1) == r["letter"]
    few = logits[..., letters].masked_fill(torch.arange(len(letters), device=logits.device) >= r["n_choices"][..., None],
                                           float("-inf"))
    values = torch.stack([asked, whole & asked, (few.argmax(-1) == r["right"]) & asked,
                          (out["retrieved"].argmax(-1) == r["answer"]) & asked], dim=-1).float().flatten(0, 1)
    table = torch.zeros(n_mixes * n_kinds, 4, device=logits.device)
    place = r["mix"][:, None] * n_kinds + r["kind"].clamp(min=0)
    return table.index_add_(0, place.flatten(), values).view(n_mixes, n_kinds, 4)
