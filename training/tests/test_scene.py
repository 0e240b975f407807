"""Tests of the drawn clips: python3 -m unittest training/tests/test_scene.py (needs numpy and OpenCV)."""
import json
import math
import os
import random
import shutil
import sys
import tempfile
import unittest
from collections import Counter, defaultdict

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
try:
    import cv2
    import numpy as np
except ImportError as error:
    raise unittest.SkipTest(f"the drawn clips need numpy and OpenCV: {error}")
import make_dataset  # noqa: E402
from scene import SIGN_CLASSES, all_frames, draw_clip  # noqa: E402
from scene import questions as Q  # noqa: E402
from scene import world as W  # noqa: E402

KINDS = {"sign", "speed", "light", "change", "lane", "turn", "cross", "count", "weather", "rule"}
# Small pictures: what is asked depends on sizes relative to the picture alone, and 2,000 clips take seconds.
SMALL = {"width": 112, "height": 64}


def many(n, first=0):
    return [draw_clip(seed, **SMALL) for seed in range(first, first + n)]


class Prior(unittest.TestCase):
    """Nothing in the text may tell the answer."""

    @classmethod
    def setUpClass(cls):
        cls.train, cls.test = defaultdict(Counter), []
        cls.letters, cls.first = defaultdict(Counter), Counter()
        for i, clip in enumerate(many(4000)):
            for q in clip.questions:
                if i % 2:
                    cls.test.append(q)
                else:
                    cls.train[(q.kind, q.text)][q.label] += 1
                cls.letters[(q.kind, len(q.choices))][q.answer] += 1

    def test_guess_from_text(self):
        """The commonest answer of that (kind, wording) among the choices, learned on 2,000 clips, tried on 2,000."""
        right, chance, n = Counter(), Counter(), Counter()
        for q in self.test:
            seen = self.train[(q.kind, q.text)]
            guess = max(range(len(q.choices)), key=lambda i: seen[q.choices[i][3:]])
            right[q.kind] += guess == q.answer
            chance[q.kind] += 1 / len(q.choices)
            n[q.kind] += 1
        self.assertEqual(set(n), KINDS)
        for kind in sorted(KINDS):
            got, fair = right[kind] / n[kind], chance[kind] / n[kind]
            print(f"prior {kind:8} n {n[kind]:5} guess {100 * got:5.1f} % chance {100 * fair:5.1f} %")
            # Three standard deviations of a fair coin and 1.5 points.
            self.assertLess(got - fair, 3 * math.sqrt(fair * (1 - fair) / n[kind]) + 0.015, kind)

    def test_letters_even(self):
        for (kind, size), seen in sorted(self.letters.items()):
            total = sum(seen.values())
            for i in range(size):
                sd = math.sqrt(total / size * (1 - 1 / size))
                # Some 30 numbers are looked at: four standard deviations.
                self.assertLess(abs(seen[i] - total / size), 4 * sd + 1, (kind, size, i, dict(seen)))


class Clips(unittest.TestCase):
    def test_same_seed_same_clip(self):
        random.seed(1)
        np.random.seed(1)
        a = draw_clip(77)
        random.seed(2)
        np.random.seed(2)
        draw_clip(78)
        b = draw_clip(77)
        self.assertTrue(np.array_equal(a.frames, b.frames))
        self.assertEqual([vars(q) for q in a.questions], [vars(q) for q in b.questions])
        self.assertFalse(np.array_equal(a.frames, draw_clip(78).frames))

    def test_frames_are_those_of_the_video(self):
        clip = draw_clip(3_000_000_005)
        every = [image for _, image, _ in all_frames(3_000_000_005)]
        self.assertEqual(len(every), clip.frame_count)
        for i, index in enumerate(W.frame_indices(len(every), 8)):
            self.assertTrue(np.array_equal(clip.frames[i], every[index]), (i, index))

    def test_frame_indices(self):
        self.assertEqual(W.frame_indices(50, 8), [3, 9, 15, 21, 27, 34, 40, 46])

    def test_shapes_and_boxes(self):
        for seed in range(40):
            clip = draw_clip(seed, n_frames=4, width=320, height=180)
            self.assertEqual((clip.frames.shape, clip.frames.dtype), ((4, 180, 320, 3), np.uint8))
            self.assertEqual([len(b) for b in clip.boxes], [len(o) for o in clip.objects])
            for boxes in clip.boxes:
                for label, x0, y0, x1, y1 in boxes:
                    self.assertIn(label, make_dataset.LABELS)
                    self.assertTrue(0 <= x0 < x1 <= 320 and 0 <= y0 < y1 <= 180, (seed, label, x0, y0, x1, y1))

    def test_questions_well_formed(self):
        for clip in many(300, 10_000):
            kinds = [q.kind for q in clip.questions]
            self.assertEqual(len(kinds), len(set(kinds)))
            for q in clip.questions:
                self.assertTrue(2 <= len(q.choices) <= 4)
                self.assertEqual([c[:3] for c in q.choices], ["A. ", "B. ", "C. ", "D. "][:len(q.choices)])
                self.assertEqual(len(set(c[3:] for c in q.choices)), len(q.choices))
                self.assertEqual(q.choices[q.answer][3:], q.label)
                self.assertNotIn("{", q.text)
                self.assertTrue(q.support_frames)
                for t in q.support_frames:
                    self.assertTrue(0 <= t <= clip.truth["duration_s"])


class Truth(unittest.TestCase):
    """What is asked agrees with what the frames show."""

    def test_answers_agree_with_objects(self):
        for seed in range(250):
            clip = draw_clip(seed)
            signs = Counter(o["attr"] for f in clip.objects for o in f if o["kind"] == "sign")
            for q in clip.questions:
                if q.kind == "sign":
                    shown = {Q.SIGN_NAMES["speed" if s.startswith("speed") else s] for s in clip.truth["signs"]}
                    self.assertEqual(sum(c[3:] in shown for c in q.choices), 1, (seed, q))
                elif q.kind == "speed":
                    self.assertGreaterEqual(signs["speed_" + q.label.split()[0]], 2, (seed, q))
                elif q.kind == "light":
                    last = [o["attr"] for o in clip.objects[-1] if o["kind"] == "light"]
                    self.assertEqual([Q.COLOURS[s] for s in last], [q.label], seed)
                elif q.kind == "change":
                    states = [o["attr"] for f in clip.objects for o in f if o["kind"] == "light"]
                    order = [s for i, s in enumerate(states) if i == 0 or states[i - 1] != s]
                    self.assertEqual(Q.PROGRAMS[tuple(order)], q.label, seed)
                    self.assertEqual(len(states), len(clip.frames), seed)
                elif q.kind == "count":
                    kind, number = clip.truth["counted"]
                    there = [o for o in clip.objects[-1] if o["kind"] == kind]
                    self.assertEqual(len(there), number, (seed, kind))

    def test_all_sign_classes_drawn(self):
        drawn = Counter(s for seed in range(400) for s in W.plan(seed).signs)
        self.assertEqual(set(drawn), set(SIGN_CLASSES))

    def test_speed_limit_is_readable(self):
        """A speed sign that is asked about is at least 22 px of 448 wide in two frames, or 8 where it is small."""
        small = Counter()
        for seed in range(150):
            clip = draw_clip(seed)
            if any(q.kind == "speed" for q in clip.questions):
                signs = [o for f in clip.objects for o in f if o["kind"] == "sign" and o["attr"].startswith("speed")]
                wide = [(o["box"][2] - o["box"][0]) * 448 / 800 for o in signs]
                self.assertGreaterEqual(sum(x >= (8 if signs[0]["small"] else 22) for x in wide), 2, (seed, wide))
                small[signs[0]["small"]] += 1
                if signs[0]["small"]:
                    self.assertLess(max(wide), 14, seed)
        self.assertGreater(min(small[True], small[False]), 10, small)

    def test_small_lights_stand_beside_panels(self):
        """A tile of the frame shows two or three alike; only one of them is a light."""
        found = 0
        for seed in range(60):
            clip = draw_clip(seed)
            if "light" in clip.truth["small"]:
                found += 1
                for objects, decoys in zip(clip.objects, clip.decoys):
                    self.assertEqual(sum(o["kind"] == "light" for o in objects), 1, seed)
                    self.assertTrue(all(o["label"] for o in objects))
                    self.assertLessEqual(len(decoys), 2)
        self.assertGreater(found, 5)

    def test_near_clips_have_nothing_small(self):
        for seed in range(30):
            clip = draw_clip(seed, **SMALL, far=False)
            self.assertEqual((clip.truth["small"], sum(len(d) for d in clip.decoys)), ([], 0))

    def test_other_numbers_of_frames(self):
        """What is counted is what the last of these frames shows."""
        for n in (4, 16):
            for seed in range(60):
                clip = draw_clip(seed, n)
                self.assertEqual(len(clip.frames), n)
                for q in clip.questions:
                    if q.kind == "count":
                        there = [o for o in clip.objects[-1] if o["kind"] == clip.truth["counted"][0]]
                        self.assertEqual(str(len(there)), q.label, (seed, n))


class Dataset(unittest.TestCase):
    def test_written_files(self):
        with tempfile.TemporaryDirectory() as out:
            make_dataset.main([out, "--seeds", "3000000000:3000000004", "--questions", "12", "--frames", "--videos"])
            with open(os.path.join(out, "questions.json"), encoding="utf-8") as f:
                questions = json.load(f)
            self.assertEqual((questions["__count__"], len(questions["data"])), (12, 12))
            for entry in questions["data"]:
                self.assertIn(entry["answer"], entry["choices"])
                path = os.path.join(out, entry["video_path"])
                video = cv2.VideoCapture(path)
                self.assertTrue(video.isOpened(), path)
                count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
                video.release()
                seed = int(os.path.basename(path)[5:-4])
                if shutil.which("ffmpeg"):
                    self.assertEqual(count, W.plan(seed).asked["frames"], path)
            with open(os.path.join(out, "coco.json"), encoding="utf-8") as f:
                coco = json.load(f)
            self.assertEqual(len(coco["images"]), 32)
            for image in coco["images"]:
                self.assertTrue(os.path.exists(os.path.join(out, "frames", image["file_name"])))
            known = {image["id"] for image in coco["images"]}
            self.assertTrue(all(a["image_id"] in known and a["bbox"][2] > 0 for a in coco["annotations"]))


if __name__ == "__main__":
    unittest.main()
