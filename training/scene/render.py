"""Draws a planned world as seen from the car: one frame at a time, for any time t."""
import math

import cv2
import numpy as np

from . import sprites
from . import world as W

NEAR = 0.8
LIGHTING = {"day": (1.0, 1.0, 1.0), "dusk": (0.80, 0.60, 0.52), "night": (0.40, 0.42, 0.54)}
SKIES = {"day": ((95, 150, 215), (200, 220, 235)), "dusk": ((70, 60, 110), (245, 150, 85)),
         "night": ((8, 10, 28), (34, 37, 60))}
LABELS = {"car": "car", "truck": "truck", "motorcycle": "motorcycle", "bicycle": "bicycle", "pedestrian": "pedestrian",
          "light": "traffic light"}
_BANKS = {}


def bank(kind, height, width):
    """Noise and rain pictures, larger than a frame, made once a process; frames take a part of them."""
    key = (kind, height, width)
    if key not in _BANKS:
        r = np.random.default_rng(7)
        shape = (height + 64, width + 64)
        if kind.startswith("noise"):
            _BANKS[key] = np.clip(r.normal(0, 1, (*shape, 3)) * float(kind[5:]) + 32, 0, 64).astype(np.uint8)
        elif kind == "texture":
            small = r.normal(0, 1, (shape[0] // 2, shape[1] // 8)).astype(np.float32)
            big = cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
            _BANKS[key] = cv2.cvtColor(np.clip(big * 5 + 16, 0, 32).astype(np.uint8), cv2.COLOR_GRAY2RGB)
        else:
            rain = np.zeros(shape, np.uint8)
            for _ in range(int(shape[0] * shape[1] / 620)):
                x, y, n = r.integers(0, shape[1]), r.integers(0, shape[0]), r.integers(6, 20)
                cv2.line(rain, (int(x), int(y)), (int(x - n // 4), int(y + n)), int(r.integers(30, 95)), 1)
            _BANKS[key] = cv2.cvtColor(rain, cv2.COLOR_GRAY2RGB)
    return _BANKS[key]


def window(picture, height, width, seed):
    y, x = (seed * 7919) % 64, (seed * 104729) % 64
    return picture[y:y + height, x:x + width]


class Renderer:
    def __init__(self, world, seed, width, height):
        self.w, self.width, self.height = world, width, height
        self.focal = W.FOCAL * width
        # Pixels of a picture 448 wide; small pictures stay as they were, since tests draw what they draw for speed.
        self.unit = max(1.0, width / 448)
        self.rng = np.random.default_rng([seed & 0xFFFFFFFF, seed >> 32, 1])
        self.tint = np.array(LIGHTING[world.time])
        if world.weather != "clear" and world.time != "night":
            self.tint = self.tint * (0.78 if world.weather == "rain" else 0.9)
        self.tint = self.tint * self.rng.uniform(0.9, 1.08)
        self.night = world.time == "night"
        sky = np.array(SKIES[world.time], float) * self.rng.uniform(0.9, 1.08)
        if world.weather != "clear":
            grey = sky.mean(1, keepdims=True) * np.array([1.0, 1.02, 1.05])
            sky = 0.2 * sky + 0.8 * grey * (0.85 if world.weather == "rain" else 1.0)
        self.sky = np.clip(sky, 0, 255)
        self.fog = np.clip(self.sky[1] * 0.92 + (38 if self.night else 0), 0, 255)
        self.fog_range = {"fog": 22.0, "rain": 70.0, "clear": 260.0}[world.weather] * self.rng.uniform(0.9, 1.2)
        self.horizon = height * self.rng.uniform(0.425, 0.46)
        self.shake = [(self.rng.uniform(3, 14), self.rng.uniform(0, 6.28), self.rng.uniform(0.2, 1.6)) for _ in "123"]
        self.sway = [(self.rng.uniform(0.4, 2.0), self.rng.uniform(0, 6.28), self.rng.uniform(0.5, 2.5)) for _ in "12"]
        self.blur = self.rng.uniform(0.4, 0.8) if self.rng.random() < 0.3 else 0.0
        self.noise = ("", "noise2", "noise4", "noise6")[int(self.rng.integers(0, 4))]
        if world.far:
            self.jpeg = int(self.rng.integers(55, 92)) if self.rng.random() < 0.25 else 0
        else:
            self.jpeg = int(self.rng.integers(35, 85)) if self.rng.random() < 0.35 else 0
        self.hood = self.rng.uniform(0.90, 0.96) if self.rng.random() < 0.5 else 0.0
        self.seed = seed % 9973
        self.make_panorama()
        self.make_ground()
        self.make_blocks()
        self.make_fog()
        self.looks = [self.look(thing) for thing in world.things]

    # What does not move ------------------------------------------------------------------------------------------

    def make_panorama(self):
        """Sky and far hills or houses, wide enough for the turn; a turn of 90 degrees is focal * pi/2 pixels."""
        r, w = self.rng, self.width
        edge = int(30 * self.unit)
        self.pano_left = edge + (int(self.focal * 1.6) if self.w.turn == "left" else 0)
        wide = w + 2 * edge + (int(self.focal * 1.6) if self.w.turn != "straight" else 0)
        top, rows, u = self.horizon, int(self.horizon) + int(12 * self.unit), self.unit
        k = np.linspace(0, 1, rows)[:, None] ** 1.3
        column = self.sky[0] * (1 - k) + self.sky[1] * k
        pano = np.empty((rows, wide, 3), np.uint8)
        pano[:] = column[:, None].astype(np.uint8)
        if self.w.weather == "clear" and not self.night:
            for _ in range(int(r.integers(0, 6))):
                c = (self.sky[1] * 0.5 + 125).clip(0, 255)
                x, y = int(r.integers(0, wide)), int(r.uniform(0.05, 0.6) * top)
                for _ in range(4):
                    cv2.ellipse(pano, (x + int(u * r.integers(-25, 25)), y + int(u * r.integers(-4, 4))),
                                (int(u * r.integers(10, 32)), int(u * r.integers(3, 8))), 0, 0, 360, c.tolist(), -1)
        elif self.night and self.w.weather == "clear":
            for _ in range(40):
                pano[int(r.uniform(0, 0.8) * top), int(r.integers(0, wide))] = 150
        style = int(r.integers(0, 3))
        base = np.array([(70, 95, 75), (110, 112, 120), (85, 105, 85)][style]) * self.tint
        base = (base * 0.6 + self.fog * 0.4).tolist()
        if style != 1:
            x = np.arange(0, wide + 16, 16)
            y = top - 8 * u - sum(u * a * np.sin(x / (u * b) + c) for a, b, c in
                                  zip(r.uniform(3, 9, 3), r.uniform(30, 140, 3), r.uniform(0, 6, 3)))
            points = np.concatenate([np.stack([x, y], 1), [[wide, rows], [0, rows]]])
            cv2.fillPoly(pano, [points.astype(np.int32)], base)
        else:
            x = 0
            while x < wide:
                n, h = int(u * r.integers(14, 46)), int(u * r.uniform(6, 40))
                shade = r.uniform(0.8, 1.15)
                cv2.rectangle(pano, (x, int(top) - h), (x + n, rows), [min(255.0, c * shade) for c in base], -1)
                if self.night:
                    for _ in range(3):
                        px, py = x + int(r.integers(2, n)), int(top) - int(r.uniform(0.2, 0.95) * h)
                        cv2.rectangle(pano, (px, py), (px + 1, py + 1), (200, 180, 110), -1)
                x += n
        if self.w.weather == "fog":
            pano = cv2.addWeighted(pano, 0.3, np.full_like(pano, self.fog.astype(np.uint8)), 0.7, 0)
        self.pano = pano

    def quad(self, x0, z0, x1, z1, colour):
        self.flat.append(((x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)))
        self.flat_colour.append(colour)

    def make_ground(self):
        w, r = self.w, self.rng
        self.flat, self.flat_colour = [], []
        asphalt = np.array([r.uniform(72, 100)] * 3) + r.uniform(-4, 4, 3)
        if w.weather == "rain":
            asphalt = asphalt * 0.8 + self.sky[1] * 0.06
        walk = np.array([[150, 140, 130], [125, 122, 118], [140, 118, 98]][int(r.integers(0, 3))], float)
        earth = np.array([[95, 120, 70], [120, 108, 85], [115, 115, 112]][int(r.integers(0, 3))], float)
        self.earth = earth * self.tint
        white, yellow = np.array([232.0] * 3), np.array([225.0, 185, 60])
        gain = 1.2 if self.night else 1.0  # what the headlights reach
        zi, ch, h = w.crossing_z, w.crossing_half, w.half
        crossing = math.isfinite(zi)
        far = w.travelled(w.duration) + 130
        side = h + 3.0
        self.quad(-side, -10, side, far, walk)
        if crossing:
            self.quad(-160, zi - 3.0, 160, zi + 2 * ch + 3.0, walk)
        self.quad(-h, -10, h, far, asphalt * gain)
        if crossing:
            self.quad(-160, zi, 160, zi + 2 * ch, asphalt * gain)
        paint = (white if r.random() < 0.6 else yellow) * gain
        mark = white * gain
        ranges = [(-10, far)] if not crossing else [(-10, zi - 1.0), (zi + 2 * ch + 1.0, far)]
        for z0, z1 in ranges:
            self.quad(-0.18, z0, -0.06, z1, paint)
            self.quad(0.06, z0, 0.18, z1, paint)
            for s in (-1, 1):
                self.quad(s * (h - 0.28), z0, s * (h - 0.14), z1, mark)
            z = z0 + r.uniform(0, 6)
            while z < min(z1, far - 60):
                for lane in range(1, w.lanes):
                    for s in (-1, 1):
                        self.quad(s * W.LANE * lane - 0.08, z, s * W.LANE * lane + 0.08, min(z + 3.0, z1), mark)
                z += 7.0
        if crossing:
            self.quad(0.2, zi - 1.4, h - 0.3, zi - 0.8, mark)
            mid = zi + ch
            for s in (-1, 1):
                self.quad(s * (h + 1), mid - 0.12, s * 160, mid + 0.12, paint)
        self.zebra_quads = range(0)
        if math.isfinite(w.zebra) and w.zebra > 0:
            begin = len(self.flat)
            x = -h + 0.4
            while x < h - 0.5:
                self.quad(x, w.zebra - 1.5, x + 0.5, w.zebra + 1.5, mark)
                x += 1.0
            self.zebra_quads = range(begin, len(self.flat))
        self.arrow_marks = []
        for lane, name in w.arrows.items():
            shape = sprites.arrow_shape(name)
            for n in range(-6, 4):
                z = w.arrow_phase + n * w.arrow_step
                if z < -6 or z + W.ARROW_LENGTH > min(w.crossing_z - 1.4, far) or abs(z + 2.5 - w.zebra) < 4.1:
                    continue
                begin = len(self.flat)
                for points in shape:
                    x = W.LANE * (lane + 0.5)
                    self.flat.append(tuple((x + 1.25 * a, 0, z + W.ARROW_LENGTH * b) for a, b in points))
                    self.flat_colour.append(mark)
                self.arrow_marks.append((name, lane == w.lane, begin, len(self.flat)))
        self.flat = np.array(self.flat, np.float32)
        colour = np.array(self.flat_colour) * self.tint
        self.flat_colour = np.clip(colour, 0, 255)

    def make_blocks(self):
        """Houses along the road (and along the crossing road): their two visible walls as quads; trees as sprites."""
        w, r = self.w, self.rng
        quads, colours, wall_of, self.trees = [], [], [], []
        zi, ch, crossing = w.crossing_z, w.crossing_half, math.isfinite(w.crossing_z)
        density, greenery = r.uniform(0.2, 1.0), r.uniform(0.1, 0.8)
        far = w.travelled(w.duration) + 75

        def wall(a, b, height, colour):
            quads.append(((a[0], 0, a[1]), (b[0], 0, b[1]), (b[0], height, b[1]), (a[0], height, a[1])))
            colours.append(colour)
            wall_of.append(len(wall_of))

        def house(x0, x1, z0, z1, height):
            colour = np.array(PAINTS[int(r.integers(0, len(PAINTS)))], float) * self.tint * r.uniform(0.8, 1.05)
            inner = x0 if abs(x0) < abs(x1) else x1
            wall((x0, z0), (x1, z0), height, colour)
            wall((inner, z0), (inner, z1), height, colour * 0.85)
            own = len(wall_of) - 1
            lit = np.array([230.0, 200, 120]) if self.night and r.random() < 0.6 else colour * 0.45
            y = 1.0
            while y < min(height - 1, 8):
                quads.append(((inner, y, z0 + 0.6), (inner, y, z1 - 0.6), (inner, y + 1.1, z1 - 0.6),
                              (inner, y + 1.1, z0 + 0.6)))
                colours.append(lit)
                wall_of.append(own)
                y += 3.2

        for s in (-1, 1):
            z = -2.0 + r.uniform(0, 5)
            while z < far:
                depth = r.uniform(5, 12)
                hit = crossing and z < zi + 2 * ch + 4 and z + depth > zi - 4
                if not hit:
                    x = s * (w.half + r.uniform(4.0, 6.5))
                    if r.random() < density * 0.8:
                        house(min(x, x + s * 9), max(x, x + s * 9), z, z + depth, r.uniform(3.5, 12))
                    if r.random() < greenery:
                        self.trees.append((s * (w.half + r.uniform(2.6, 3.8)), z + depth * r.random(),
                                           r.uniform(3.5, 6.5), int(r.integers(0, 6))))
                z += depth + r.uniform(0, 3)
        if w.turn != "straight":
            s = 1 if w.turn == "right" else -1
            for z in (zi - 4.5, zi + 2 * ch + 4.5):
                x = w.half + 9.0
                while x < 70:
                    n = r.uniform(5, 10)
                    if r.random() < density:
                        colour = np.array(PAINTS[int(r.integers(0, len(PAINTS)))], float) * self.tint
                        height = r.uniform(3.5, 11)
                        wall((s * x, z), (s * (x + n), z), height, colour * 0.9)
                        back = z + (-6 if z < zi else 6)
                        wall((s * x, z), (s * x, back), height, colour * 0.7)
                    if r.random() < greenery:
                        self.trees.append((s * x, z + (1.5 if z < zi else -1.5), r.uniform(3.5, 6),
                                           int(r.integers(0, 6))))
                    x += n + r.uniform(0, 4)
        self.walls = np.array(quads, np.float32).reshape(-1, 4, 3)
        self.wall_of = np.array(wall_of, np.int64)  # a window is drawn right after its wall
        self.wall_colour = np.clip(np.array(colours).reshape(-1, 3), 0, 255)
        self.tree_sprites = {v: (sprites.tree(v) * np.array([*np.minimum(self.tint, 1), 1.0])).astype(np.uint8)
                             for v in {t[3] for t in self.trees}}

    def look(self, thing):
        """The thing's sprites: {key: sprite}; the key is chosen frame by frame."""
        r, t, k = self.rng, self.tint, thing.kind
        t = np.minimum(t * (1.7 if self.night else 1.0), 1.0)  # headlights and street lamps
        paint = CARS[int(r.integers(0, len(CARS)))]
        shirt = SHIRTS[int(r.integers(0, len(SHIRTS)))]
        front = thing.attr == "front"
        if k == "sign":
            bright = np.minimum(np.maximum(t, 0.72), 1.0)
            return {0: (sprites.sign(thing.attr) * np.array([*bright, 1.0])).astype(np.uint8)}
        if k in ("light", "panel"):
            return {s: sprites.light(s, t, bars=k == "panel") for s in set(thing.look.get("program", self.w.program))}
        if k == "car":
            return {0: sprites.car(paint, t, front, self.night)}
        if k == "truck":
            return {0: sprites.truck(TRUCKS[int(r.integers(0, len(TRUCKS)))], t, front, self.night)}
        if thing.attr.startswith("crossing") and k != "pedestrian":
            side = thing.look["facing"]
            if k == "motorcycle":  # bright, or its body is lost between the tyres
                paint = CARS[(0, 2, 3, 6, 7)[int(r.integers(0, 5))]]
            return {i: sprites.two_wheeler(k, paint, shirt, t, side, i / 4, self.night) for i in range(4)}
        if k == "motorcycle":
            return {0: sprites.motorcycle(paint, shirt, t, front, self.night)}
        trousers = ((40, 45, 70), (60, 50, 45), (90, 90, 95))[int(r.integers(0, 3))]
        return {i: sprites.pedestrian(shirt, trousers, t, thing.look["facing"], i / 4) for i in range(4)}

    # One frame ---------------------------------------------------------------------------------------------------

    def camera(self, t):
        x, z, yaw = self.w.pose(t)
        moving = 0.35 + min(1.0, self.w.speed / 8)
        pitch = self.unit * moving * sum(a * math.sin(f * t * 6.28 + p) for f, p, a in self.shake)
        sway = self.unit * sum(a * math.sin(f * t * 6.28 + p) for f, p, a in self.sway)
        return x, z, yaw, self.width / 2 + sway, self.horizon + pitch * 0.6

    def project(self, points, cam):
        """points [..., 3] in the world -> ([..., 2] pixels, [...] depth); camera coordinates where depth is small."""
        x, z, yaw, cx, hy = cam
        c, s = math.cos(yaw), math.sin(yaw)
        dx, dz = points[..., 0] - x, points[..., 2] - z
        right, depth = dx * c - dz * s, dx * s + dz * c
        safe = np.maximum(depth, NEAR)
        uv = np.stack([cx + self.focal * right / safe, hy + self.focal * (W.EYE - points[..., 1]) / safe], -1)
        return uv, depth, right

    def polygons(self, image, points, colours, cam, order=None):
        uv, depth, right = self.project(points, cam)
        low, high = depth.min(1), depth.max(1)
        left, rightmost = uv[..., 0].min(1), uv[..., 0].max(1)
        visible = (high > NEAR) & ((low <= NEAR) | ((rightmost > 0) & (left < self.width)))
        mean = np.maximum(depth.mean(1), 1.0)
        if order is None:  # flat on the ground: fog is laid over it afterwards
            shaded = colours.astype(np.uint8).tolist()
        else:
            k = np.exp(-mean / self.fog_range)[:, None]
            shaded = (colours * k + self.fog * (1 - k)).astype(np.uint8).tolist()
        fixed = np.clip(uv * 16, -60000, 60000).astype(np.int32)
        index = np.nonzero(visible)[0]
        if order == "far first":
            index = index[np.argsort(-low[self.wall_of[index]], kind="stable")]
        whole = low > NEAR
        for i in index.tolist():
            if whole[i]:
                cv2.fillConvexPoly(image, fixed[i], shaded[i], cv2.LINE_8, 4)
            else:
                clipped = self.clip(points[i], right[i], depth[i], cam)
                if clipped is not None:
                    cv2.fillPoly(image, [clipped], shaded[i], cv2.LINE_8, 4)
        return uv, depth

    def clip(self, points, right, depth, cam):
        """A polygon that begins behind the camera, cut at the near plane."""
        out = []
        n = len(points)
        for i in range(n):
            j = (i + 1) % n
            a, b = float(depth[i]), float(depth[j])
            if a > NEAR:
                out.append((float(right[i]), a, float(points[i][1])))
            if (a > NEAR) != (b > NEAR):
                k = (NEAR - a) / (b - a)
                out.append((float(right[i] + k * (right[j] - right[i])), NEAR,
                            float(points[i][1] + k * (points[j][1] - points[i][1]))))
        if len(out) < 3:
            return None
        f, cx, hy = self.focal, cam[3], cam[4]
        return np.array([[max(-60000, min(60000, int(16 * (cx + f * r / d)))),
                          max(-60000, min(60000, int(16 * (hy + f * (W.EYE - y) / d))))] for r, d, y in out], np.int32)

    def blit(self, image, sprite, x0, y0, x1, y1, fog=0.0):
        """Scales the sprite to the box and lays it over the image; fog in [0, 1] hides that part of it."""
        ix0, iy0, ix1, iy1 = round(x0), round(y0), round(x1), round(y1)
        w, h = ix1 - ix0, iy1 - iy0
        if w < 1 or h < 1 or ix1 <= 0 or iy1 <= 0 or ix0 >= self.width or iy0 >= self.height or \
                max(w, h) > 900 * self.unit:
            return
        method = cv2.INTER_AREA if w < 0.7 * sprite.shape[1] else cv2.INTER_LINEAR
        small = cv2.resize(sprite, (w, h), interpolation=method)
        cx0, cy0 = max(0, -ix0), max(0, -iy0)
        small = small[cy0:h - max(0, iy1 - self.height), cx0:w - max(0, ix1 - self.width)]
        region = image[iy0 + cy0:iy0 + cy0 + small.shape[0], ix0 + cx0:ix0 + cx0 + small.shape[1]]
        alpha = cv2.merge([small[..., 3]] * 3)
        colour = np.ascontiguousarray(small[..., :3])
        if fog > 0.02:
            colour = cv2.add(cv2.convertScaleAbs(colour, None, 1 - fog),
                             cv2.multiply(alpha, (*(self.fog * fog / 255).tolist(), 0.0)))
        region[:] = cv2.add(cv2.multiply(region, 255 - alpha, None, 1 / 255), colour)

    def frame(self, t, number):
        """-> (image [height, width, 3] RGB, boxes as dicts)"""
        H, Wd, w = self.height, self.width, self.w
        cam = self.camera(t)
        yaw, hy = cam[2], cam[4]
        image = np.empty((H, Wd, 3), np.uint8)
        row = max(0, min(H, int(hy)))
        offset = int(self.pano_left + self.focal * yaw - (cam[3] - Wd / 2))
        offset = max(0, min(offset, self.pano.shape[1] - Wd))
        shift = int(self.horizon) - row
        top = self.pano[max(0, shift):max(0, shift) + row, offset:offset + Wd]
        image[row - top.shape[0]:row] = top
        image[:row - top.shape[0]] = top[0]
        cv2.rectangle(image, (0, row), (Wd, H), np.clip(self.earth, 0, 255).tolist(), -1)
        uv, depth = self.polygons(image, self.flat, self.flat_colour, cam)
        ground = image[row:]
        texture = window(bank("texture", H, Wd), H, Wd, self.seed + number * 31)[row:]
        cv2.add(ground, texture, ground)
        cv2.subtract(ground, (16, 16, 16, 0), ground)
        self.lay_fog(ground)
        if len(self.walls):
            self.polygons(image, self.walls, self.wall_colour, cam, "far first")
        found = self.upright(image, t, cam)
        self.marks(found, uv, depth)
        return self.finish(image, number), found

    def make_fog(self):
        """Fog (and at night the end of the headlights' reach) over the ground, by the row's distance."""
        rows = np.arange(self.height) + 0.5
        dist = self.focal * W.EYE / rows
        k = np.exp(-dist / self.fog_range)
        glow = 0.6 + 0.6 * np.exp(-((dist - 7) / 12) ** 2) if self.night else np.ones_like(dist)
        shape = (self.height, self.width, 3)
        self.ground_gain = np.empty(shape, np.uint8)
        self.ground_gain[:] = (k * glow * 200).astype(np.uint8)[:, None, None]
        self.ground_add = np.empty(shape, np.uint8)
        self.ground_add[:] = ((1 - k)[:, None] * self.fog).astype(np.uint8)[:, None]

    def lay_fog(self, ground):
        n = len(ground)
        cv2.multiply(ground, self.ground_gain[:n], ground, 1 / 200)
        cv2.add(ground, self.ground_add[:n], ground)

    def upright(self, image, t, cam):
        drawn = []
        for x, z, height, variant in self.trees:
            drawn.append((x, z, 0.0, height * 0.75, height, None, self.tree_sprites[variant]))
        for i, (thing, look) in enumerate(zip(self.w.things, self.looks)):
            x, z = thing.at(t)
            if thing.kind == "light":
                sprite = look[self.w.light_state(t)]
            elif thing.kind == "panel":
                sprite = look[thing.look["program"][sum(t >= c for c in thing.look["times"])]]
            elif len(look) > 1:
                pace = abs(thing.vx) + abs(thing.vz)
                sprite = look[int(t * (2.0 + 2.2 * pace if pace > 0.1 else 0)) % 4]
            else:
                sprite = look[0]
            drawn.append((x, z, thing.y, thing.w, thing.h, i, sprite))
        at = np.array([(d[0], d[2], d[1]) for d in drawn], np.float32).reshape(-1, 3)
        uv, depth, _ = self.project(at, cam)
        found = []
        for n in np.argsort(-depth).tolist():
            d = float(depth[n])
            if d < 2.0 or d > (90 if drawn[n][5] is not None else 55):
                continue
            _, _, y, wide, high, i, sprite = drawn[n]
            s = self.focal / d
            u, v = float(uv[n, 0]), float(uv[n, 1])
            x0, x1, y0, y1 = u - wide * s / 2, u + wide * s / 2, v - high * s, v
            thing = self.w.things[i] if i is not None else None
            fog = 1 - math.exp(-d / self.fog_range)
            if thing is not None and "pole" in thing.look:
                self.pole(image, u, v, high * s, u + (thing.look["pole"] - drawn[n][0]) * s, cam[4] + s * W.EYE,
                          s, fog, thing.look.get("small"))
            if thing is not None and thing.kind in ("sign", "light", "panel"):
                fog *= 0.45  # they shine back
            if thing is not None and thing.kind in SHADOWED and not self.night:
                shade = np.clip(40 * self.tint * (1 - fog) + self.fog * fog, 0, 255).tolist()
                axes = (max(1, round(wide * s * 0.52)), max(1, round(0.12 * s)))
                cv2.ellipse(image, (round(u), round(v)), axes, 0, 0, 360, shade, -1)
            self.blit(image, sprite, x0, y0, x1, y1, fog)
            if thing is not None:
                found.append(self.entry(thing, i, x0, y0, x1, y1, d))
        return self.keep_visible(found)

    def pole(self, image, u, v, high, foot_u, foot_v, s, fog, thin=False):
        """The post under a sign or light whose lower edge is (u, v); with an arm where the post stands aside."""
        half = round(0.015 * s) if thin else max(1, round(0.05 * s))
        c = np.clip(np.array([120, 120, 120]) * self.tint * (1 - fog) + self.fog * fog, 0, 255).tolist()
        top = v - 1
        if abs(foot_u - u) > 1:
            top = v - high * 0.6
            cv2.rectangle(image, (round(u), round(top) - half), (round(foot_u), round(top) + half), c, -1)
        cv2.rectangle(image, (round(foot_u) - half, round(top)), (round(foot_u) + half, round(foot_v)), c, -1)

    def entry(self, thing, i, x0, y0, x1, y1, depth):
        label, attr = LABELS.get(thing.kind), thing.attr
        if thing.kind == "sign":
            label = "stop sign" if attr == "stop" else "traffic sign"
            if attr.startswith("speed"):
                label = "speed limit sign"
        elif thing.kind == "light":
            attr = self.state
        return {"label": label, "kind": thing.kind, "attr": attr, "thing": i, "full": (x0, y0, x1, y1), "depth": depth,
                "small": bool(thing.look.get("small"))}

    def keep_visible(self, found):
        """Clips boxes to the picture and measures how much of each is seen; those almost hidden are left out."""
        out = []
        bottom = self.height * (self.hood or 1.0)
        for n, e in enumerate(found):
            x0, y0, x1, y1 = e["full"]
            cx0, cy0, cx1, cy1 = max(0.0, x0), max(0.0, y0), min(float(self.width), x1), min(bottom, y1)
            if min(cx1 - cx0, cy1 - cy0) < (3 if e["small"] else 4):
                continue
            part = (cx1 - cx0) * (cy1 - cy0) / ((x1 - x0) * (y1 - y0))
            hidden = 0.0
            for other in found[n + 1:]:
                a = other["full"]
                w, h = min(cx1, a[2]) - max(cx0, a[0]), min(cy1, a[3]) - max(cy0, a[1])
                if w > 0 and h > 0:
                    hidden = max(hidden, w * h / ((cx1 - cx0) * (cy1 - cy0)))
            e["visible"] = part * (1 - hidden)
            e["box"] = (cx0, cy0, cx1, cy1)
            if e["visible"] > 0.3:
                out.append(e)
        return out

    def marks(self, found, uv, depth):
        """Boxes of what is painted on the road: arrows and the pedestrian crossing."""
        groups = [("lane arrow", "arrow", name, own, b, e) for name, own, b, e in self.arrow_marks]
        if len(self.zebra_quads):
            groups.append(("road marking", "zebra", "zebra", True, self.zebra_quads[0], self.zebra_quads[-1] + 1))
        bottom = self.height * (self.hood or 1.0)
        for label, kind, attr, own, begin, end in groups:
            d = depth[begin:end]
            if d.min() < 2.0 or d.min() > (16 if kind == "arrow" else 25):
                continue
            p = uv[begin:end].reshape(-1, 2)
            x0, y0, x1, y1 = float(p[:, 0].min()), float(p[:, 1].min()), float(p[:, 0].max()), float(p[:, 1].max())
            c = (max(0.0, x0), max(0.0, y0), min(float(self.width), x1), min(bottom, y1))
            if c[2] - c[0] < 6 or c[3] - c[1] < 4:
                continue
            part = (c[2] - c[0]) * (c[3] - c[1]) / max(1e-6, (x1 - x0) * (y1 - y0))
            for other in found:
                a = other["full"]
                w, h = min(c[2], a[2]) - max(c[0], a[0]), min(c[3], a[3]) - max(c[1], a[1])
                if w > 0 and h > 0 and other["kind"] not in ("arrow", "zebra"):
                    part *= 1 - w * h / ((c[2] - c[0]) * (c[3] - c[1]))
            if part > 0.4:
                found.append({"label": label, "kind": kind, "attr": attr, "own": own, "thing": -1, "box": c, "small": False,
                              "full": (x0, y0, x1, y1), "visible": part, "depth": float(d.min())})

    def finish(self, image, number):
        H, Wd = self.height, self.width
        if self.hood:
            cv2.ellipse(image, (Wd // 2, int(H * 1.25)), (int(Wd * 0.75), int(H * (1.25 - self.hood))), 0, 180, 360,
                        np.clip(np.array([35, 36, 40]) * (0.5 + self.tint.mean()), 0, 255).tolist(), -1)
        if self.w.weather == "rain":
            cv2.add(image, window(bank("rain", H, Wd), H, Wd, self.seed + number * 17), image)
        if self.blur:
            image = cv2.GaussianBlur(image, (3, 3), self.blur)
        if self.noise:
            cv2.add(image, window(bank(self.noise, H, Wd), H, Wd, self.seed + number * 13), image)
            cv2.subtract(image, (32, 32, 32, 0), image)
        if self.jpeg:
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            ok, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, self.jpeg))
            if ok:
                image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return image


SHADOWED = {"car", "truck", "motorcycle", "bicycle", "pedestrian"}
PAINTS = ((205, 190, 160), (180, 150, 120), (160, 170, 180), (200, 200, 195), (170, 120, 95), (140, 160, 140),
          (215, 195, 120), (150, 140, 160))
CARS = ((225, 225, 225), (40, 42, 48), (170, 30, 35), (40, 70, 140), (150, 152, 158), (120, 90, 60), (30, 95, 75),
        (215, 165, 40))
TRUCKS = ((60, 95, 160), (205, 205, 200), (50, 120, 80), (185, 120, 45), (150, 50, 45), (140, 140, 145))
SHIRTS = ((200, 60, 60), (60, 90, 180), (225, 225, 220), (230, 170, 60), (90, 150, 90), (150, 90, 150), (60, 60, 65))
