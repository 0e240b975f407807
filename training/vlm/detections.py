"""What a detector would find in a drawn clip: the truth's boxes with a detector's faults.

The language model is trained with these and not with the detector's own boxes, so that it learns to live with any
detector that is right most of the time: boxes a little off, objects missed, found twice or where nothing is, labels mixed
up or half said, and only the first five of a frame, in an order in which sure ones mostly come first.
"""
MAX_DETECTIONS = 5  # lowbeam's --max-detections
# What a label is now and then taken for.
CONFUSED = {"speed limit sign": ("traffic sign", "stop sign"), "stop sign": ("traffic sign",),
            "traffic sign": ("speed limit sign", "stop sign"), "traffic light": ("traffic signal",),
            "car": ("vehicle", "truck"), "truck": ("vehicle", "car"), "motorcycle": ("bicycle", "vehicle"),
            "bicycle": ("motorcycle",), "pedestrian": ("motorcycle",), "lane arrow": ("road marking", "lane marking"),
            "road marking": ("lane marking",)}
ANYTHING = ("traffic sign", "traffic light", "lane arrow", "road marking", "car", "truck", "motorcycle", "pedestrian")


class Detector:
    """One clip's detector: how good it is, is drawn once for all its frames."""

    def __init__(self, rng):
        self.rng = rng
        self.misses = rng.uniform(0.0, 0.22)
        self.off = rng.uniform(0.01, 0.07)  # of the box's size
        self.extra = rng.uniform(0.0, 0.25)  # boxes without an object, a frame
        self.fooled = rng.choice((0.0, 0.15, 0.8))  # how often a panel is a light
        self.confusion = rng.uniform(0.0, 0.08)
        self.order = rng.uniform(0.2, 1.0)  # how much of the order is chance

    def found(self, clip, frame):
        """[(label text, (x0, y0, x1, y1))], at most MAX_DETECTIONS, boxes in pixels, each with an area when cut to whole
        pixels."""
        rng, out = self.rng, []
        height, width = clip.frames.shape[1:3]
        for thing in clip.objects[frame]:
            x0, y0, x1, y1 = thing["box"]
            small, seen = min(x1 - x0, y1 - y0), thing["visible"]
            missed = self.misses + (0.25 if small < 10 else 0.0) + (0.5 if seen < 0.5 else 0.0)
            if rng.random() < missed:
                continue
            for _ in range(2 if rng.random() < 0.03 else 1):
                out.append((0.8 * seen + 0.002 * min(small, 100.0), self.label(thing["label"]), thing["box"]))
        for box in clip.decoys[frame]:
            if rng.random() < self.fooled:
                out.append((0.6, "traffic light", box))
        for _ in range(rng.poisson(self.extra)):
            w, h = width * rng.uniform(0.015, 0.15), height * rng.uniform(0.03, 0.25)
            x, y = rng.uniform(0, width - w), rng.uniform(0.1 * height, height - h)
            out.append((0.3, str(rng.choice(ANYTHING)), (x, y, x + w, y + h)))
        noise = rng.normal(0, self.order, len(out))
        order = sorted(range(len(out)), key=lambda i: -out[i][0] - noise[i])
        boxes = [(out[i][1], self.jitter(out[i][2])) for i in order]
        return [(label, box) for label, box in boxes
                if int(box[2]) > int(box[0]) and int(box[3]) > int(box[1])][:MAX_DETECTIONS]

    def label(self, label):
        """The words that pass the text threshold: mostly the label, sometimes another, part of it, or two."""
        rng = self.rng
        if rng.random() < self.confusion:
            label = str(rng.choice(CONFUSED[label]))
        words = label.split()
        if len(words) > 1 and rng.random() < 0.03:
            del words[rng.integers(len(words))]
        elif rng.random() < 0.02 and label in CONFUSED:
            words += str(rng.choice(CONFUSED[label])).split()
        return " ".join(words)

    def jitter(self, box):
        x0, y0, x1, y1 = box
        w, h = x1 - x0, y1 - y0
        a = self.rng.normal(0, self.off, 4)
        b = self.rng.normal(0, 0.5, 4)
        return x0 + a[0] * w + b[0], y0 + a[1] * h + b[1], x1 + a[2] * w + b[2], y1 + a[3] * h + b[3]


def text(found):
    """As src/run/findings.c writes it: "2 (car, truck)"; "" for none."""
    return f"{len(found)} ({', '.join(label for label, _ in found)})" if found else ""
