"""Flat pictures of signs, vehicles and people, drawn large and scaled down when a frame is drawn.

A sprite is uint8 [height, width, 4], RGB premultiplied with alpha (what is outside is 0 in all four), so that scaling
needs no care at the edges. Signs are drawn once a process; vehicles and people once a clip, in their own colours.
"""
import math
from functools import lru_cache

import cv2
import numpy as np

RED, BLUE, WHITE, BLACK, YELLOW = (204, 20, 30), (15, 70, 175), (245, 245, 245), (15, 15, 15), (250, 205, 40)
SPEEDS = (30, 40, 50, 60, 80)
SIGN_CLASSES = ("no_entry", "stop", "no_left", "no_right", "no_parking", "children", "curve", "crossroad",
                "must_straight", "must_left", "must_right", "roundabout", "crosswalk") + tuple(
                    f"speed_{v}" for v in SPEEDS)
ARROW_CLASSES = ("straight", "left", "right", "straight_left", "straight_right")
SIZE = 384


class Pad:
    """A canvas in units of its height: (0, 0) is the upper left corner, y = 1 the lower edge."""

    def __init__(self, height, width, tint=(1.0, 1.0, 1.0)):
        self.image = np.zeros((height, width, 4), np.uint8)
        self.unit = height
        self.tint = tint

    def colour(self, rgb, glow=False):
        if glow:
            return (*rgb, 255)
        return (rgb[0] * self.tint[0], rgb[1] * self.tint[1], rgb[2] * self.tint[2], 255)

    def points(self, points):
        return np.array([[round(x * self.unit * 16), round(y * self.unit * 16)] for x, y in points], np.int32)

    def poly(self, rgb, points, glow=False):
        cv2.fillPoly(self.image, [self.points(points)], self.colour(rgb, glow), cv2.LINE_8, 4)

    def rect(self, rgb, x0, y0, x1, y1, glow=False):
        self.poly(rgb, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), glow)

    def disc(self, rgb, x, y, rx, ry=None, glow=False):
        self.arc(rgb, x, y, rx, ry or rx, 0, 360, -1, glow)

    def arc(self, rgb, x, y, rx, ry, start, end, width, glow=False):
        u = self.unit
        cv2.ellipse(self.image, (round(x * u), round(y * u)), (max(1, round(rx * u)), max(1, round(ry * u))), 0, start,
                    end, self.colour(rgb, glow), -1 if width < 0 else max(1, round(width * u)))

    def line(self, rgb, points, width):
        u = self.unit
        whole = np.array([[round(x * u), round(y * u)] for x, y in points], np.int32)
        cv2.polylines(self.image, [whole], False, self.colour(rgb), max(1, round(width * u)))


def digit(pad, number, x, y, w, h, rgb):
    """One digit with its upper left corner at (x, y); strokes of our own, as OpenCV's fonts change with its version."""
    t = 0.26 * w
    cx, top, bottom = x + w / 2, y + h * 0.28, y + h * 0.70
    rx = w / 2 - t / 2
    if number == 0:
        pad.arc(rgb, cx, y + h / 2, rx, h / 2 - t / 2, 0, 360, t)
    elif number == 3:
        pad.arc(rgb, cx, top, rx * 0.92, h * 0.28 - t / 2, 190, 450, t)
        pad.arc(rgb, cx, bottom, rx, h * 0.30 - t / 2, 270, 530, t)
    elif number == 4:
        pad.line(rgb, ((x + w * 0.62, y + t / 2), (x + t / 2, y + h * 0.66), (x + w, y + h * 0.66)), t)
        pad.line(rgb, ((x + w * 0.70, y + t / 2), (x + w * 0.70, y + h - t / 2)), t)
    elif number == 5:
        pad.line(rgb, ((x + w - t / 2, y + t / 2), (x + t * 0.8, y + t / 2), (x + t * 0.6, y + h * 0.46)), t)
        pad.arc(rgb, cx - w * 0.03, y + h * 0.67, rx, h * 0.33 - t / 2, 225, 510, t)
    elif number == 6:
        pad.arc(rgb, cx, y + h * 0.67, rx, h * 0.33 - t / 2, 0, 360, t)
        pad.arc(rgb, cx + rx * 0.95, y + h * 0.67, rx * 1.95, h * 0.67 - t / 2, 180, 262, t)
    elif number == 8:
        pad.arc(rgb, cx, top, rx * 0.88, h * 0.28 - t / 2, 0, 360, t)
        pad.arc(rgb, cx, bottom, rx, h * 0.30 - t / 2, 0, 360, t)


def arrow_head(pad, rgb, x, y, dx, dy, length, half):
    pad.poly(rgb, ((x + dx * length, y + dy * length), (x - dy * half, y + dx * half), (x + dy * half, y - dx * half)))


def turn_arrow(pad, rgb, side, t=0.10):
    """A shaft that bends to one side; side is -1 (left) or +1."""
    c = 0.5 - side * 0.12
    end = 0.5 + side * 0.12
    pad.line(rgb, ((c, 0.76), (c, 0.40), (end, 0.40)), t)
    arrow_head(pad, rgb, end - side * 0.02, 0.40, side, 0, 0.19, 0.15)


def ring(pad, fill=WHITE):
    pad.disc(RED, 0.5, 0.5, 0.49)
    pad.disc(fill, 0.5, 0.5, 0.37)


def slash(pad):
    pad.line(RED, ((0.25, 0.25), (0.75, 0.75)), 0.08)


def triangle(pad):
    pad.poly(RED, ((0.5, 0.02), (0.99, 0.92), (0.01, 0.92)))
    pad.poly(YELLOW, ((0.5, 0.21), (0.84, 0.83), (0.16, 0.83)))


def person_sign(pad, rgb, x, y, h):
    pad.disc(rgb, x, y + h * 0.12, h * 0.12)
    pad.line(rgb, ((x, y + h * 0.2), (x, y + h * 0.6)), h * 0.2)
    pad.line(rgb, ((x, y + h * 0.58), (x - h * 0.2, y + h)), h * 0.12)
    pad.line(rgb, ((x, y + h * 0.58), (x + h * 0.2, y + h)), h * 0.12)
    pad.line(rgb, ((x - h * 0.25, y + h * 0.45), (x, y + h * 0.3), (x + h * 0.25, y + h * 0.45)), h * 0.09)


def draw_sign(name):
    pad = Pad(SIZE, SIZE)
    if name.startswith("speed_"):
        value = name[6:]
        ring(pad)
        for i, c in enumerate(value):
            digit(pad, int(c), 0.215 + i * 0.30, 0.27, 0.27, 0.46, BLACK)
    elif name == "no_entry":
        pad.disc(RED, 0.5, 0.5, 0.49)
        pad.rect(WHITE, 0.14, 0.40, 0.86, 0.60)
    elif name == "stop":
        octagon = [(0.5 + r * math.cos(a), 0.5 + r * math.sin(a)) for r, a in
                   ((0.52, math.pi * (i + 0.5) / 4) for i in range(8))]
        pad.poly(WHITE, octagon)
        pad.poly(RED, [(0.5 + (x - 0.5) * 0.92, 0.5 + (y - 0.5) * 0.92) for x, y in octagon])
        letters(pad, 0.12, 0.36, 0.17, 0.28)
    elif name in ("no_left", "no_right"):
        ring(pad)
        turn_arrow(pad, BLACK, -1 if name == "no_left" else 1)
        pad.line(RED, ((0.25, 0.25), (0.75, 0.75)) if name == "no_left" else ((0.75, 0.25), (0.25, 0.75)), 0.08)
    elif name == "no_parking":
        ring(pad, BLUE)
        slash(pad)
    elif name == "children":
        triangle(pad)
        person_sign(pad, BLACK, 0.40, 0.47, 0.33)
        person_sign(pad, BLACK, 0.60, 0.44, 0.36)
    elif name == "curve":
        triangle(pad)
        pad.line(BLACK, ((0.44, 0.80), (0.44, 0.60), (0.56, 0.48)), 0.09)
        arrow_head(pad, BLACK, 0.54, 0.50, 0.7, -0.7, 0.13, 0.13)
    elif name == "crossroad":
        triangle(pad)
        pad.line(BLACK, ((0.5, 0.38), (0.5, 0.80)), 0.11)
        pad.line(BLACK, ((0.31, 0.63), (0.69, 0.63)), 0.11)
    elif name == "must_straight":
        pad.disc(WHITE, 0.5, 0.5, 0.49)
        pad.disc(BLUE, 0.5, 0.5, 0.46)
        pad.line(WHITE, ((0.5, 0.84), (0.5, 0.40)), 0.13)
        arrow_head(pad, WHITE, 0.5, 0.42, 0, -1, 0.28, 0.20)
    elif name in ("must_left", "must_right"):
        side = -1 if name == "must_left" else 1
        pad.disc(WHITE, 0.5, 0.5, 0.49)
        pad.disc(BLUE, 0.5, 0.5, 0.46)
        pad.line(WHITE, ((0.5 - side * 0.34, 0.5), (0.5 + side * 0.1, 0.5)), 0.13)
        arrow_head(pad, WHITE, 0.5 + side * 0.06, 0.5, side, 0, 0.30, 0.22)
    elif name == "roundabout":
        pad.disc(WHITE, 0.5, 0.5, 0.49)
        pad.disc(BLUE, 0.5, 0.5, 0.46)
        for k in range(3):
            a = 120 * k
            pad.arc(WHITE, 0.5, 0.5, 0.25, 0.25, a, a + 70, 0.10)
            e = math.radians(a + 70)
            arrow_head(pad, WHITE, 0.5 + 0.25 * math.cos(e), 0.5 + 0.25 * math.sin(e), -math.sin(e), math.cos(e), 0.15,
                       0.13)
    elif name == "crosswalk":
        pad.rect(WHITE, 0.03, 0.03, 0.97, 0.97)
        pad.rect(BLUE, 0.06, 0.06, 0.94, 0.94)
        pad.poly(WHITE, ((0.5, 0.12), (0.88, 0.86), (0.12, 0.86)))
        person_sign(pad, BLACK, 0.5, 0.36, 0.44)
    else:
        raise ValueError(f"no sign is called {name!r}")
    return pad.image


def letters(pad, x, y, w, h):
    """The word STOP in white."""
    t = w * 0.28
    step = w * 1.16

    def at(i, points):
        pad.line(WHITE, [(x + i * step + px * w, y + py * h) for px, py in points], t)

    at(0, ((0.9, 0.08), (0.15, 0.08), (0.15, 0.48), (0.85, 0.52), (0.85, 0.92), (0.1, 0.92)))
    at(1, ((0.0, 0.08), (1.0, 0.08)))
    at(1, ((0.5, 0.08), (0.5, 1.0)))
    at(2, ((0.15, 0.08), (0.85, 0.08), (0.85, 0.92), (0.15, 0.92), (0.15, 0.08)))
    at(3, ((0.15, 1.0), (0.15, 0.08), (0.85, 0.08), (0.85, 0.55), (0.15, 0.55)))


@lru_cache(maxsize=None)
def sign(name):
    return cv2.resize(draw_sign(name), (96, 96), interpolation=cv2.INTER_AREA)


def car(rgb, tint, front, night, glass=(40, 50, 60)):
    p = Pad(96, 116, tint)
    w = 116 / 96
    dark = tuple(c * 0.72 for c in rgb)
    p.rect((25, 25, 25), 0.10, 0.80, 0.30, 0.99)
    p.rect((25, 25, 25), w - 0.30, 0.80, w - 0.10, 0.99)
    p.poly(dark, ((0.28, 0.04), (w - 0.28, 0.04), (w - 0.10, 0.46), (0.10, 0.46)))
    p.poly(glass, ((0.33, 0.10), (w - 0.33, 0.10), (w - 0.19, 0.42), (0.19, 0.42)))
    p.poly(rgb, ((0.08, 0.42), (w - 0.08, 0.42), (w - 0.02, 0.58), (w - 0.03, 0.90), (0.03, 0.90), (0.02, 0.58)))
    p.rect((60, 60, 60), 0.03, 0.82, w - 0.03, 0.90)
    p.rect((235, 235, 235), w / 2 - 0.13, 0.68, w / 2 + 0.13, 0.77)
    lamp = ((255, 250, 220) if night else (225, 225, 215)) if front else ((255, 40, 40) if night else (200, 20, 20))
    for x in (0.06, w - 0.26):
        p.rect(lamp, x, 0.50, x + 0.20, 0.62, night)
    if front:
        p.rect((30, 30, 30), 0.34, 0.54, w - 0.34, 0.63)
    return p.image


def truck(rgb, tint, front, night):
    p = Pad(128, 100, tint)
    w = 100 / 128
    p.rect((25, 25, 25), 0.06, 0.86, 0.22, 0.99)
    p.rect((25, 25, 25), w - 0.22, 0.86, w - 0.06, 0.99)
    if front:
        p.rect((190, 190, 185), 0.03, 0.02, w - 0.03, 0.40)
        p.rect(rgb, 0.05, 0.30, w - 0.05, 0.92)
        p.rect((45, 55, 65), 0.10, 0.36, w - 0.10, 0.58)
        p.rect((50, 50, 50), 0.20, 0.68, w - 0.20, 0.78)
    else:
        p.rect(rgb, 0.03, 0.02, w - 0.03, 0.82)
        dark = tuple(c * 0.65 for c in rgb)
        p.line(dark, ((0.03, 0.02), (w - 0.03, 0.02), (w - 0.03, 0.82), (0.03, 0.82), (0.03, 0.02)), 0.03)
        p.rect(dark, w / 2 - 0.012, 0.04, w / 2 + 0.012, 0.80)
        for y in (0.22, 0.42, 0.62):
            p.rect(dark, 0.05, y, w - 0.05, y + 0.012)
        p.rect((55, 55, 55), 0.03, 0.82, w - 0.03, 0.90)
    lamp = ((255, 250, 220) if night else (230, 230, 220)) if front else ((255, 40, 40) if night else (200, 20, 20))
    for x in (0.06, w - 0.18):
        p.rect(lamp, x, 0.82, x + 0.12, 0.88, night)
    return p.image


def motorcycle(rgb, shirt, tint, front, night):
    """Seen from behind or from the front, rider included."""
    p = Pad(112, 60, tint)
    w = 60 / 112
    c = w / 2
    p.rect((20, 20, 20), c - 0.05, 0.66, c + 0.05, 0.99)
    p.poly(rgb, ((c - 0.12, 0.56), (c + 0.12, 0.56), (c + 0.09, 0.82), (c - 0.09, 0.82)))
    p.line((50, 50, 50), ((c - 0.24, 0.46), (c + 0.24, 0.46)), 0.03)
    p.poly((40, 45, 60), ((c - 0.17, 0.52), (c + 0.17, 0.52), (c + 0.19, 0.78), (c + 0.11, 0.80), (c, 0.62),
                          (c - 0.11, 0.80), (c - 0.19, 0.78)))
    p.poly(shirt, ((c - 0.15, 0.24), (c + 0.15, 0.24), (c + 0.17, 0.56), (c - 0.17, 0.56)))
    p.line(shirt, ((c - 0.14, 0.28), (c - 0.22, 0.46)), 0.07)
    p.line(shirt, ((c + 0.14, 0.28), (c + 0.22, 0.46)), 0.07)
    p.disc((200, 160, 130), c, 0.15, 0.075)
    p.arc((230, 200, 40) if shirt[0] < 150 else (40, 60, 150), c, 0.13, 0.095, 0.10, 180, 360, -1)
    lamp = (255, 250, 220) if front else (255, 40, 40)
    p.rect(lamp, c - 0.05, 0.60, c + 0.05, 0.66, night)
    return p.image


def two_wheeler(kind, rgb, shirt, tint, facing, phase, night):
    """A motorcycle or bicycle from the side with its rider; facing is +1 to the right."""
    p = Pad(112, 124, tint)
    w = 124 / 112
    heavy = kind == "motorcycle"
    r, t = (0.135, 0.075) if heavy else (0.20, 0.028)
    y = 0.985 - r - t / 2
    rear, fore = (0.22, w - 0.24)
    for x in (rear, fore):
        p.arc((20, 20, 20), x, y, r, r, 0, 360, t)
    if heavy:
        p.poly(rgb, ((rear - 0.08, 0.60), (rear + 0.34, 0.62), (fore - 0.16, 0.72), (fore - 0.08, 0.52),
                     (fore + 0.02, 0.50), (fore - 0.06, 0.86), (rear + 0.22, 0.90), (rear + 0.06, 0.78)))
        p.rect((25, 25, 25), rear - 0.06, 0.55, rear + 0.36, 0.62)
        p.line((60, 60, 60), ((fore - 0.05, 0.48), (fore, y)), 0.05)
        p.rect((255, 250, 220), fore - 0.02, 0.50, fore + 0.06, 0.57, night)
    else:
        seat, crank, head = (rear + 0.20, 0.56), (rear + 0.27, y), (fore - 0.10, 0.54)
        for a, b in ((seat, crank), (crank, head), (seat, head), (crank, (rear, y)), ((rear, y), seat),
                     (head, (fore, y))):
            p.line(rgb, (a, b), 0.035)
        p.line((40, 40, 40), ((head[0] - 0.06, 0.47), head), 0.03)
    hip, shoulder = (rear + 0.24, 0.54), (rear + 0.32, 0.27)
    kick = 0.05 * math.sin(phase * 2 * math.pi) if not heavy else 0.0
    p.line((40, 45, 70), (hip, (hip[0] + 0.20, 0.66 + kick), (hip[0] + 0.13, 0.86 + kick)), 0.085)
    p.line(shirt, (hip, shoulder), 0.17)
    p.line(shirt, (shoulder, (fore - 0.12, 0.47)), 0.06)
    p.disc((200, 160, 130), shoulder[0] + 0.03, 0.14, 0.075)
    if heavy:
        p.arc((230, 200, 40), shoulder[0] + 0.02, 0.13, 0.095, 0.10, 160, 370, -1)
    else:
        p.poly((215, 190, 120), ((shoulder[0] - 0.13, 0.13), (shoulder[0] + 0.03, 0.015), (shoulder[0] + 0.19, 0.13)))
    return p.image if facing > 0 else np.ascontiguousarray(p.image[:, ::-1])


def pedestrian(shirt, trousers, tint, facing, phase, hair=(30, 25, 20)):
    """phase in [0, 1): where in the step; facing 0 is along the road."""
    p = Pad(112, 64, tint)
    c = 32 / 112
    swing = math.sin(phase * 2 * math.pi) * (0.15 if facing else 0.05)
    p.line(trousers, ((c, 0.54), (c + swing, 0.97)), 0.10)
    p.line(trousers, ((c, 0.54), (c - swing, 0.97)), 0.10)
    p.line(shirt, ((c, 0.24), (c, 0.54)), 0.19)
    p.line(shirt, ((c, 0.26), (c - swing * 0.9 - 0.09, 0.52)), 0.06)
    p.line(shirt, ((c, 0.26), (c + swing * 0.9 + 0.09, 0.52)), 0.06)
    p.disc((205, 165, 135), c, 0.11, 0.078)
    p.arc(hair, c, 0.10, 0.085, 0.085, 180, 360, -1)
    return p.image if facing >= 0 else np.ascontiguousarray(p.image[:, ::-1])


def light(state, tint, bars=False):
    """Three lamps above one another; state is 'red', 'yellow' or 'green'. bars: two upright bars for each lamp, which from
    afar look like it."""
    p = Pad(168, 68, tint)
    w = 68 / 168
    p.rect((30, 32, 30), 0, 0, w, 1)
    p.rect((50, 52, 50), 0.02, 0.02, w - 0.02, 0.98)
    for i, (name, on, off) in enumerate((("red", (255, 40, 30), (70, 20, 20)), ("yellow", (255, 210, 30), (70, 60, 15)),
                                         ("green", (40, 255, 110), (12, 60, 30)))):
        lit = name == state
        if bars:
            for x in (0.055, w - 0.055 - 0.09):
                p.rect(on if lit else off, x, 0.05 + 0.32 * i, x + 0.09, 0.31 + 0.32 * i, glow=lit)
            continue
        p.disc(on if lit else off, w / 2, 0.18 + 0.32 * i, 0.145, glow=lit)
        if lit:
            p.disc(tuple(min(255, c + 90) for c in on), w / 2, 0.18 + 0.32 * i, 0.07, glow=True)
    return p.image


@lru_cache(maxsize=None)
def tree(variant):
    r = np.random.default_rng(variant + 11)
    p = Pad(160, 120)
    w = 120 / 160
    p.line((90, 65, 45), ((w / 2, 0.99), (w / 2, 0.5)), 0.06)
    if variant % 4 == 3:
        for a in range(-4, 5):
            p.line((50, 110 + 5 * a, 50), ((w / 2, 0.35), (w / 2 + a * 0.09, 0.30 + 0.02 * a * a)), 0.05)
        p.line((120, 100, 75), ((w / 2, 0.99), (w / 2, 0.35)), 0.045)
    else:
        for _ in range(16):
            g = int(r.integers(70, 135))
            p.disc((g * 0.45, g, g * 0.4), w / 2 + float(r.normal(0, 0.11)), 0.33 + float(r.normal(0, 0.11)),
                   float(r.uniform(0.07, 0.14)))
    return p.image


def arrow_shape(name):
    """Painted arrow as convex quads in (across, along), across in [-1, 1], along in [0, 1] away from the driver."""
    def head(x, y, dx, dy, length, half):
        px, py = -dy, dx
        tip = (x + dx * length, y + dy * length)
        return (tip, (x + px * half, y + py * half * 0.5), (x - px * half, y - py * half * 0.5), tip)

    quads = []
    if name.startswith("straight"):
        quads.append(((-0.13, 0), (0.13, 0), (0.13, 0.68), (-0.13, 0.68)))
        quads.append(((0, 1), (0.46, 0.64), (-0.46, 0.64), (0, 1)))
    else:
        quads.append(((-0.13, 0), (0.13, 0), (0.13, 0.62), (-0.13, 0.62)))
    for side, wanted in ((-1, name.endswith("left")), (1, name.endswith("right"))):
        if wanted:
            low = 0.28 if name.startswith("straight") else 0.46
            quads.append(((0, low), (side * 0.50, low), (side * 0.50, low + 0.17), (0, low + 0.17)))
            mid = low + 0.085
            quads.append(((side * 1.0, mid), (side * 0.48, mid + 0.22), (side * 0.48, mid - 0.22), (side * 1.0, mid)))
    return quads
