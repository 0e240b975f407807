"""draw_clip: the frames, boxes, questions and truth of one clip, all from one seed."""
from dataclasses import dataclass

import numpy as np

from . import questions
from . import world as W
from .render import Renderer

SEEN_PX = {"speed": 22.0, "sign": 19.0, "small": 8.0}  # of a picture 448 wide
WIDTH, HEIGHT = 800, 450


@dataclass
class Clip:
    frames: np.ndarray  # uint8 [n_frames, height, width, 3] RGB
    boxes: list  # per frame: [(label, x0, y0, x1, y1)], pixels
    objects: list  # per frame, parallel to boxes: dicts with kind, attr, label, visible (0..1), thing (-1 or a number), box
    decoys: list  # per frame: boxes (x0, y0, x1, y1) of what only looks like something that has a label
    questions: list
    truth: dict
    times: list  # seconds of the frames
    fps: float
    frame_count: int  # of the whole clip


def wide_enough(entry, width):
    need = 3.0 if entry["small"] else 6.0
    if entry["kind"] == "sign":
        need = SEEN_PX["small" if entry["small"] else "speed" if entry["attr"].startswith("speed") else "sign"]
    x0, _, x1, _ = entry["box"]
    return entry["visible"] > 0.85 and x1 - x0 >= need * width / 448


def draw_clip(seed, n_frames=8, width=WIDTH, height=HEIGHT, far=True):
    """far: see world.py."""
    world = W.plan(seed, far)
    count = world.asked["frames"]
    renderer = Renderer(world, seed, width, height)
    frames = np.empty((n_frames, height, width, 3), np.uint8)
    objects, decoys, times, seen = [], [], [], {}
    for n, index in enumerate(W.frame_indices(count, n_frames)):
        t = index / W.FPS
        frames[n], found = draw(renderer, t, index)
        decoys.append([e["box"] for e in found if e["label"] is None])
        found = [e for e in found if e["label"] is not None]
        for e in found:
            if e["thing"] >= 0 and wide_enough(e, width):
                seen.setdefault(e["thing"], []).append(round(t, 2))
            elif e["kind"] == "arrow" and e["own"] and e["visible"] > 0.7 and e["depth"] < 13:
                when = seen.setdefault("arrow", [])
                if round(t, 2) not in when:
                    when.append(round(t, 2))
        objects.append(found)
        times.append(t)
    boxes = [[(e["label"], *e["box"]) for e in found] for found in objects]
    # The plan has all of them in sight at the last of eight frames; other numbers of frames end elsewhere.
    counted = world.counted[1] if n_frames == 8 else sum(e["kind"] == world.counted[0] for e in objects[-1])
    return Clip(frames, boxes, objects, decoys, questions.ask(world, times, seen, seed, counted), truth(world), times, W.FPS,
                count)


def draw(renderer, t, index):
    renderer.state = renderer.w.light_state(t) if renderer.w.program else ""
    return renderer.frame(t, index)


def all_frames(seed, width=WIDTH, height=HEIGHT, far=True):
    """Yields (t, image, objects) for every frame of the clip, the same pictures that draw_clip takes its frames from."""
    world = W.plan(seed, far)
    renderer = Renderer(world, seed, width, height)
    for index in range(world.asked["frames"]):
        image, found = draw(renderer, index / W.FPS, index)
        yield index / W.FPS, image, [e for e in found if e["label"] is not None]


def truth(w):
    return {"duration_s": w.duration, "weather": w.weather, "time": w.time, "turn": w.turn, "signs": list(w.signs),
            "light": list(w.program), "light_changes_s": list(w.change_times), "crosser": w.crosser,
            "crosser_direction": "right" if w.crosser_right else "left", "lanes": w.lanes, "lane": w.lane,
            "arrow": w.arrows.get(w.lane), "counted": w.counted if "count" in w.asked else None,
            "small": [thing.attr or thing.kind for thing in w.things if thing.look.get("small") and thing.kind != "panel"]}
