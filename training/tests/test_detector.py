"""Tests of the detector's training: python3 -m unittest training/tests/test_detector.py (needs torch and transformers)."""
import itertools
import os
import re
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
try:
    import numpy as np
    import torch
    import transformers  # noqa: F401
except ImportError as error:
    raise unittest.SkipTest(f"the detector's training needs torch and transformers: {error}")
from detector import feed as D  # noqa: E402
from detector import losses as L  # noqa: E402
from detector import model as M  # noqa: E402
from detector import score as S  # noqa: E402
from detector import vocabulary as V  # noqa: E402

LABELS_C = os.path.join(HERE, "..", "..", "src", "detector", "labels.c")


def some_objects(b, n, seed=0):
    """(labels [b, n], boxes [b, n, 4]); the last object of the first picture is none."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(V.LABELS), (b, n), generator=g)
    labels[0, -1] = -1
    size = torch.rand(b, n, 2, generator=g) * 0.2 + 0.05
    centre = size / 2 + torch.rand(b, n, 2, generator=g) * (1 - size)
    return labels, torch.cat((centre, size), -1)


class Vocabulary(unittest.TestCase):
    def test_labels_are_the_detectors_own(self):
        with open(LABELS_C, encoding="utf-8") as file:
            text = file.read()
        text = text[text.index("lb_labels_default["):]
        self.assertEqual(tuple(re.findall(r'"([^"]+)"', text[:text.index("};")])), V.LABELS)

    def test_tokens_as_the_tokenizer_has_them(self):
        from transformers import BertTokenizer
        with tempfile.TemporaryDirectory() as folder:
            V.write(os.path.join(folder, "vocab.txt"))
            tokenizer = BertTokenizer(os.path.join(folder, "vocab.txt"), do_lower_case=True)
            ids, spans = V.encode()
            self.assertEqual(tokenizer(". ".join(V.LABELS) + ".")["input_ids"], ids)
            for label, (begin, end) in zip(V.LABELS, spans):
                self.assertEqual(tokenizer.convert_ids_to_tokens(ids[begin:end]), label.split())
        self.assertEqual(len(set(V.words())), V.SIZE)

    def test_phrases(self):
        """[CLS] a b . c . [SEP]: as transformers 5.23 numbers it."""
        sees, position = V.text_layout([V.CLS, 500, 501, V.STOP, 502, V.STOP, V.SEP])
        self.assertEqual(position, [0, 0, 1, 2, 0, 1, 0])
        self.assertEqual([sum(row) for row in sees], [1, 3, 3, 3, 2, 2, 1])

    def test_map(self):
        prompt = M.Prompt(("car", "speed limit sign"), "cpu")
        rows = prompt.map[[V.LABELS.index("car"), V.LABELS.index("speed limit sign")]]
        # [CLS] car . speed limit sign . [SEP]
        self.assertEqual(rows.tolist(), [[0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 0, 0]])
        self.assertEqual(prompt.map.sum().item(), 4)


class Targets(unittest.TestCase):
    def test_boxes(self):
        got = D.to_target([("car", 80, 45, 240, 225), ("stop sign", 0, 0, 4, 100)], 800, 450)
        np.testing.assert_allclose(got[0], [V.LABELS.index("car"), 0.2, 0.3, 0.2, 0.4], rtol=1e-6)
        self.assertTrue((got[1:] == -1).all(), "a sign of 2.2 pixels of 448 is not taught")

    def test_largest_are_kept(self):
        boxes = [("car", 0, 0, 20 + i, 20) for i in range(D.N_OBJECTS + 5)]
        got = D.to_target(boxes, 448, 252)
        self.assertAlmostEqual(got[0, 3] * 448, 20 + D.N_OBJECTS + 4, places=3)
        self.assertAlmostEqual(got[-1, 3] * 448, 25, places=3)


class Matching(unittest.TestCase):
    def test_giou(self):
        a = torch.tensor([0.5, 0.5, 0.2, 0.2])
        self.assertAlmostEqual(L.giou(a, a).item(), 1, places=4)
        # Side by side: no overlap, but nothing between them in the hull.
        self.assertAlmostEqual(L.giou(a, torch.tensor([0.7, 0.5, 0.2, 0.2])).item(), 0, places=4)
        self.assertLess(L.giou(a, torch.tensor([0.9, 0.9, 0.1, 0.1])).item(), -0.5)

    def test_one_to_one(self):
        """Each object gets one query, the cheapest pair first, as a plain loop does it; near the cheapest sum."""
        g = torch.Generator().manual_seed(1)
        cost = torch.rand(6, 9, 5, generator=g)
        cost[2, :, 3:] = L.FAR
        got = L.match_one(cost)
        for b in range(len(cost)):
            objects = [n for n in range(5) if cost[b, 0, n] < L.FAR]
            pairs, want = sorted((cost[b, q, n].item(), q, n) for q in range(9) for n in objects), {}
            for _, q, n in pairs:
                if q not in want and n not in want.values():
                    want[q] = n
            self.assertEqual({q: n for q, n in enumerate(got[b].tolist()) if n >= 0}, want)
            best = min(sum(cost[b, q, n].item() for q, n in zip(qs, objects))
                       for qs in itertools.permutations(range(9), len(objects)))
            self.assertLess(sum(cost[b, q, n].item() for q, n in want.items()), best + 0.5)

    def test_right_boxes_are_matched(self):
        labels, wanted = some_objects(3, 6)
        prompt = M.Prompt(V.LABELS, "cpu")
        order = torch.randperm(6)
        boxes = torch.cat((torch.rand(3, 4, 4) * 0.1 + 0.4, wanted[:, order]), 1)
        target = prompt.map[labels[:, order].clamp(min=0)] * (labels[:, order] >= 0)[..., None]
        logits = torch.cat((torch.full((3, 4, target.shape[-1]), -6.0), target * 12 - 6), 1)
        match = L.match_one(L.costs(logits, boxes, labels, wanted, prompt.map))
        for b in range(3):
            for i, thing in enumerate(order.tolist()):
                self.assertEqual(match[b, 4 + i].item(), thing if labels[b, thing] >= 0 else -1)
        parts = L.taught(logits, boxes, match, labels, wanted, prompt.map)
        self.assertLess(max(value.item() for value in parts.values()), 1e-3)

    def test_several_tokens_an_object(self):
        cost = torch.rand(4, 50, 3, generator=torch.Generator().manual_seed(2))
        cost[1, :, 2] = L.FAR
        match = L.match_many(cost, 4)
        for b in range(4):
            near = [set(cost[b, :, n].topk(4, largest=False)[1].tolist()) if cost[b, 0, n] < L.FAR else set() for n in range(3)]
            for s in range(50):
                mine = [n for n in range(3) if s in near[n]]
                self.assertEqual(match[b, s].item(), min(mine, key=lambda n: cost[b, s, n]) if mine else -1)

    def test_labels_that_are_not_asked_for_are_not_taught(self):
        prompt = M.Prompt(("truck",), "cpu")
        labels = torch.tensor([[V.LABELS.index("car"), V.LABELS.index("truck")]])
        logits, boxes = torch.zeros(1, 2, prompt.map.shape[1]), torch.full((1, 2, 4), 0.5)
        alone = L.taught(logits, boxes, torch.tensor([[-1, 1]]), labels, boxes, prompt.map)
        both = L.taught(logits, boxes, torch.tensor([[0, 1]]), labels, boxes, prompt.map)
        self.assertEqual({k: v.item() for k, v in alone.items()}, {k: v.item() for k, v in both.items()})

    def test_noise(self):
        labels, wanted = some_objects(2, 5)
        boxes, match, counted = L.noised(labels, wanted, 3)
        self.assertEqual((boxes.shape, match.shape, counted.shape), ((2, 30, 4), (2, 30), (2, 30)))
        for b in range(2):
            for i in range(30):
                thing, good = i % 5, i // 5 % 2 == 0
                self.assertEqual(match[b, i].item(), thing if good and labels[b, thing] >= 0 else -1)
                self.assertEqual(counted[b, i].item(), bool(labels[b, thing] >= 0))
                if good and labels[b, thing] >= 0:
                    self.assertGreater(S.iou(boxes[b, i:i + 1].numpy(), wanted[b, thing:thing + 1].numpy())[0, 0], 0.3)
        mask = L.apart(4, 5, 3, "cpu")
        self.assertEqual(mask.shape, (34, 34))
        self.assertEqual((mask == 0).sum(1).tolist(), [4] * 4 + [10] * 30)


class Network(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.net = M.build("tiny").eval()
        with torch.no_grad():  # what is 0 or 1 at first would hide a part that is left out
            for name, p in cls.net.named_parameters():
                p.add_(0.05 * torch.randn_like(p))
        cls.pictures = torch.randint(0, 256, (2, 100, 150, 3), dtype=torch.uint8)

    def test_as_transformers(self):
        """The same boxes and logits as the ordinary forward; with further queries beside them, too."""
        model, prompt = M.Detector(self.net), M.Prompt(V.LABELS, "cpu")
        labels, wanted = some_objects(2, 5)
        q = self.net.config.num_queries
        with torch.no_grad():
            want = self.net(pixel_values=model.normalise(self.pictures), input_ids=prompt.tokens.expand(2, -1))
            got = model(self.pictures, prompt)
            more = model(self.pictures, prompt, (L.noised(labels, wanted, 2)[0], L.apart(q, 5, 2, "cpu")))
        t = prompt.tokens.shape[1]
        for name, out in (("alone", got), ("with denoising queries", more)):
            logits, boxes, _ = out["layers"][-1]
            for what, a, b in (("logits", logits[:, :q], want.logits[..., :t]), ("boxes", boxes[:, :q], want.pred_boxes)):
                # Sums in another order
                worst = ((a - b).abs().max() / b.abs().max()).item()
                self.assertLess(worst, 1e-4, f"{name}: {what} depart by {worst:.2e} of the largest")

    def test_written_and_read_again(self):
        with tempfile.TemporaryDirectory() as folder:
            M.save(self.net, folder, {"size": "tiny"})
            again = dict(M.load(folder).named_parameters())
        for name, p in self.net.named_parameters():
            self.assertTrue(torch.equal(p.half().float(), again[name]), name)

    def test_every_weight_is_taught(self):
        model, prompt = M.Detector(M.build("tiny")), M.Prompt(V.LABELS, "cpu")
        labels, wanted = some_objects(2, D.N_OBJECTS)
        labels[:, 6:] = -1
        targets = torch.cat((labels[..., None].float(), wanted), -1)
        losses, _ = L.compute(model, self.pictures, targets, prompt, 2)
        L.total(losses).backward()
        idle = [name for name, p in model.net.named_parameters() if p.grad is None]
        # Swin's last norm is in the checkpoint and nobody reads it.
        self.assertEqual([name for name in idle if not name.endswith(("layernorm.weight", "layernorm.bias"))], [])
        self.assertTrue(all(torch.isfinite(p.grad).all() for p in model.net.parameters() if p.grad is not None))


class Precision(unittest.TestCase):
    def test_average_precision(self):
        car = V.LABELS.index("car")
        targets = np.full((2, 3, 5), -1, np.float32)
        targets[0, 0] = [car, 0.3, 0.3, 0.2, 0.2]
        targets[1, 0] = [car, 0.6, 0.6, 0.2, 0.2]
        scores = np.array([[0.9, 0.8], [0.7, 0.1]])
        labels = np.full((2, 2), car)
        boxes = np.array([[[0.3, 0.3, 0.2, 0.2], [0.8, 0.8, 0.1, 0.1]], [[0.6, 0.6, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]])
        # Right, wrong, right, wrong: precision 1 up to recall 0.5, then 2/3.
        want = (51 * 1 + 50 * 2 / 3) / 101
        self.assertAlmostEqual(S.average_precision(scores, labels, boxes, targets)["car"], want, places=6)
        self.assertAlmostEqual(S.average_precision(scores, labels, boxes, targets, 0.75)["car"], 51 / 101, places=6)


if __name__ == "__main__":
    unittest.main()
