"""Average precision at IoU 0.5 on the fly, without pycocotools, which has the last word (training/detector_map.py)."""
import numpy as np
import torch

from . import vocabulary


@torch.no_grad()
def detections(out, prompt, q):
    """model's output -> (scores [B, q], labels [B, q], boxes [B, q, 4]) as lowbeam gives them: the best label's best token"""
    logits, boxes, _ = out["layers"][-1]
    p = logits[:, :q].sigmoid()
    by_label = torch.where(prompt.map.bool(), p[:, :, None], -1.0).max(-1)[0]  # [B, q, labels]
    score, label = by_label.max(-1)
    return score, label, boxes[:, :q]


def iou(a, b):
    """[n, 4], [m, 4] cx, cy, w, h -> [n, m]"""
    a0, a1, b0, b1 = a[:, :2] - a[:, 2:] / 2, a[:, :2] + a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2
    inner = (np.minimum(a1[:, None], b1) - np.maximum(a0[:, None], b0)).clip(0).prod(-1)
    return inner / np.maximum(a[:, 2:].prod(-1)[:, None] + b[:, 2:].prod(-1) - inner, 1e-9)


def average_precision(scores, labels, boxes, targets, least=0.0):
    """{label: AP at IoU 0.5} for labels that occur. scores [n, q], labels [n, q], boxes [n, q, 4], targets [n, N, 5]."""
    out = {}
    for k, name in enumerate(vocabulary.LABELS):
        true = [t[t[:, 0] == k, 1:] for t in targets]
        n_true = sum(len(t) for t in true)
        if not n_true:
            continue
        score, hit = [], []
        for i in range(len(scores)):
            chosen = np.flatnonzero((labels[i] == k) & (scores[i] >= least))
            chosen = chosen[np.argsort(-scores[i][chosen], kind="stable")]
            overlap, free = iou(boxes[i][chosen], true[i]), np.ones(len(true[i]), bool)
            for row, at in zip(overlap, chosen):
                row = np.where(free, row, 0)
                best = int(row.argmax()) if len(row) else -1
                good = best >= 0 and row[best] >= 0.5
                if good:
                    free[best] = False
                score.append(scores[i][at]), hit.append(good)
        order = np.argsort(-np.array(score), kind="stable")
        hit = np.array(hit, bool)[order]
        precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
        recall = np.cumsum(hit) / n_true
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, np.linspace(0, 1, 101))
        out[name] = float(np.where(at < len(hit), precision[np.minimum(at, len(hit) - 1)], 0).mean()) if len(hit) else 0.0
    return out
