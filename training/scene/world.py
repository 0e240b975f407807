"""What a clip shows: the plan (questions first, then the world that answers them) and where everything is at time t.

World coordinates in metres: x to the right, z along the road, y up; the road's middle is x = 0 and traffic keeps to
the right, as in Vietnam. Every answer is drawn before the world is, uniformly among the choices shown, and the world is
then made to agree with it; so the text of a question says nothing about its answer.

far: part of the signs and lights are so small that a tile of the whole frame does not show what they say, though the
frame does: what the detector's crops are for. Beside small lights stand panels that look alike from afar, with bars in
place of lamps. Without far the clips are those that the first default models were trained on (fewer sizes, more traffic).
"""
import math
import random
from dataclasses import dataclass, field

from . import sprites

LANE = 3.3
FPS = 12.5
EYE = 1.35  # height of the camera
ARROW_LENGTH = 5.0
FOCAL = 0.80  # of the picture's width
SPEED_SIGNS = tuple(f"speed_{v}" for v in sprites.SPEEDS)
PLAIN_SIGNS = tuple(s for s in sprites.SIGN_CLASSES if not s.startswith("speed_"))
LIGHT_PROGRAMS = (("red",), ("green", "yellow", "red"), ("green",), ("red", "green"), ("green", "yellow"),
                  ("red", "green", "yellow"))
VEHICLES = ("car", "truck", "motorcycle")
CROSSERS = ("pedestrian", "bicycle", "motorcycle", "none")
TURNS = ("straight", "left", "right")
TIMES = ("day", "dusk", "night")
WEATHERS = ("clear", "rain", "fog")
SMALL_SIGNS, SMALL_LIGHTS = 0.45, 0.5  # shares
SMALL_SIGN_PX = (9.0, 12.0)  # of a picture 448 wide: 5 pixels of a tile
SIZES = {"car": (1.8, 1.5), "truck": (2.5, 3.2), "motorcycle": (1.05, 1.9), "pedestrian": (0.97, 1.7),
         "bicycle": (1.9, 1.72), "motorcycle_side": (1.95, 1.76)}


@dataclass
class Thing:
    """An upright object that faces the camera: x, z at time t are x + vx*t, z + vz*t."""
    kind: str  # sign, light, panel (see add_panels), car, truck, motorcycle, bicycle, pedestrian
    attr: str  # sign class, "front"/"rear", crosser's direction, ...
    x: float
    z: float
    y: float = 0.0  # of the lower edge
    w: float = 1.0
    h: float = 1.0
    vx: float = 0.0
    vz: float = 0.0
    look: dict = field(default_factory=dict)

    def at(self, t):
        return self.x + self.vx * t, self.z + self.vz * t


@dataclass
class World:
    rng: random.Random
    duration: float
    time: str
    weather: str
    lanes: int  # in each direction
    lane: int  # ours, 0 = the innermost
    turn: str
    speed: float
    stop: bool
    half: float  # half width of the road
    crossing_z: float = math.inf  # near edge of the crossing road
    crossing_half: float = LANE + 0.3
    turn_at: float = math.inf  # distance travelled when the turn begins
    turn_radius: float = 8.0
    signs: list = field(default_factory=list)
    arrows: dict = field(default_factory=dict)  # lane -> class
    arrow_phase: float = 0.0
    arrow_step: float = 10.0
    program: tuple = ()
    change_times: tuple = ()
    crosser: str = "none"
    crosser_right: bool = True
    zebra: float = math.inf
    things: list = field(default_factory=list)
    asked: dict = field(default_factory=dict)  # kind -> what the question was decided to be
    counted: tuple = ("car", 0)
    far: random.Random = None  # decides about what is small, by itself, so that the rest of the plan stays; None: nothing

    @property
    def x0(self):
        return LANE * (self.lane + 0.5)

    def travelled(self, t):
        """Metres driven until t; a stopping car slows down evenly over the clip's first 70 %."""
        if not self.stop:
            return self.speed * t
        until = 0.7 * self.duration
        t = min(t, until)
        return self.speed * (t - t * t / (2 * until))

    def pose(self, t):
        """(x, z, yaw) of the camera; yaw is to the right of the road's direction."""
        s = self.travelled(t)
        if s <= self.turn_at:
            return self.x0, s, 0.0
        side = 1 if self.turn == "right" else -1
        r = self.turn_radius
        a = min((s - self.turn_at) / r, math.pi / 2)
        rest = s - self.turn_at - r * a
        return (self.x0 + side * (r * (1 - math.cos(a)) + rest), self.turn_at + r * math.sin(a), side * a)

    def light_state(self, t):
        i = sum(t >= c for c in self.change_times)
        return self.program[i]

    def small(self, share):
        return self.far is not None and self.far.random() < share


def frame_indices(count, n):
    """lowbeam's (and the contest's) uniform choice of n frames; Python's round is half to even, as there."""
    seg = (count - 1) / n
    return [int(seg / 2 + round(seg * i)) for i in range(n)]


def choose_set(rng, classes, truth=None):
    """(truth, choices), 2 to 4 of the classes; a given truth must itself be uniform over them for the set to be so."""
    classes = list(classes)
    k = min(len(classes), rng.choice((2, 3, 4, 4)))
    if truth is None:
        chosen = rng.sample(classes, k)
        return rng.choice(chosen), chosen
    others = [c for c in classes if c != truth]
    chosen = [truth] + rng.sample(others, k - 1)
    rng.shuffle(chosen)
    return truth, chosen


def plan(seed, far=True):
    """The facts of the clip; draws everything that a question asks about, uniformly."""
    rng = random.Random(seed)
    more = random.Random(seed ^ 0xFA12) if far else None
    frames = rng.randint(46, 62)
    duration = frames / FPS
    has_light = rng.random() < 0.42
    u = rng.random()
    turn = "straight" if has_light or u < 0.40 else ("left" if u < 0.70 else "right")
    lanes = rng.choice((1, 2, 2, 3))
    lane = rng.randrange(lanes)
    crosser = rng.choice(CROSSERS) if turn == "straight" else "none"
    slow = has_light or crosser != "none" or rng.random() < 0.4
    speed = rng.uniform(1.2, 3.2) if slow else rng.uniform(4.5, 8.5)
    if turn != "straight":
        speed = rng.uniform(4.2, 5.5)
    small_light = far and has_light and more.random() < SMALL_LIGHTS
    if small_light:
        speed = more.uniform(0.7, 1.5)  # it must be small but readable from the first frame to the last
    w = World(rng=rng, duration=duration, time=rng.choice(TIMES), weather=rng.choice(WEATHERS), lanes=lanes, lane=lane,
              turn=turn, speed=speed, stop=slow and rng.random() < 0.5 and turn == "straight",
              half=LANE * lanes + 0.3, far=more)
    w.crosser, w.crosser_right = crosser, rng.random() < 0.5
    a = w.asked
    a["frames"] = frames
    a["times"] = [i / FPS for i in frame_indices(frames, 8)]
    # Turns are 0.174 of all clips each; straight ones are asked about as often.
    a["turn"] = turn != "straight" or rng.random() < 0.267

    w.crossing_half = LANE * rng.choice((1, 1, 2)) + 0.3
    if turn != "straight":
        if turn == "right":
            w.turn_radius = rng.uniform(5.5, 7.0)
            target = w.crossing_half - LANE / 2 - 0.3
        else:
            w.turn_radius = rng.uniform(7.5, 9.0)
            target = w.crossing_half + LANE / 2
        w.turn_at = speed * duration - w.turn_radius * rng.uniform(1.15, 1.57)
        w.turn_at = max(w.turn_at, speed * duration * 0.22)
        w.crossing_z = w.turn_at + w.turn_radius - target
        w.crossing_z = max(w.crossing_z, 3.0)
    plan_light(w, has_light, small_light)
    plan_signs(w)
    if rng.random() < (0.62 if turn == "straight" else 0.35):
        plan_arrows(w)
    if w.crosser != "none" or (rng.random() < 0.25 and turn == "straight"):
        # Behind the arrows that are still in sight at the end.
        w.zebra = w.travelled(duration) + (rng.uniform(11.3, 12.3) if w.arrows else rng.uniform(7.5, 10.5))
    add_crosser(w)
    if turn == "straight":
        a["count"] = True
        kinds = [k for k in VEHICLES if not (k == "motorcycle" and w.crosser == "motorcycle")]
        kind = rng.choice(kinds)
        top = 3 if kind == "truck" or w.crosser != "none" else 4
        number, chosen = choose_set(rng, range(top + 1))
        a["count_set"] = chosen
        w.counted = (kind, number)
    add_traffic(w)
    add_people(w)
    return w


def plan_light(w, has_light, small=False):
    if not has_light:
        return
    rng, d = w.rng, w.duration
    w.program = rng.choice(LIGHT_PROGRAMS)
    if len(w.program) == 2:
        w.change_times = (d * rng.uniform(0.28, 0.68),)
    elif len(w.program) == 3:
        w.change_times = (d * rng.uniform(0.22, 0.36), d * rng.uniform(0.58, 0.74))
    end = w.travelled(d)
    w.crossing_z = end + rng.uniform(14.5, 17.0)
    pole = w.half + rng.uniform(0.5, 0.9)
    x, y = pole, rng.uniform(2.5, 3.1)
    # Seen from an inner lane the pole would leave the picture: the light then hangs from an arm above the road.
    if (x - w.x0) / (w.crossing_z - end) > 0.40 or rng.random() < 0.3:
        x, y = w.x0 + rng.uniform(0.8, 2.4), rng.uniform(3.2, 3.5)
    h = rng.uniform(1.75, 2.0)
    if small:
        w.things.append(small_light(w, "light", {}))
        add_panels(w)
    else:
        w.things.append(Thing("light", "", x, w.crossing_z, y, h * 68 / 168, h, look={"pole": pole}))


def small_light(w, kind, look):
    """Where it hangs and how large it is says nothing about its being a light or a panel."""
    far = w.far
    x, h = w.x0 + far.uniform(-4.5, 4.5), far.uniform(0.50, 0.62)
    pole = x if far.random() < 0.5 else (1 if x > 0 else -1) * (w.half + far.uniform(0.5, 0.9))
    return Thing(kind, "", x, w.crossing_z + far.uniform(-0.5, 0.5), far.uniform(2.4, 3.5), h * 68 / 168, h,
                 look={"pole": pole, "small": True, **look})


def add_panels(w):
    """One or two panels that pass for the light where it is only a few pixels wide, with colours of their own."""
    far, d = w.far, w.duration
    for _ in range(far.choice((1, 1, 2))):
        for attempt in range(20):
            program = far.choice([p for p in LIGHT_PROGRAMS if p != w.program])
            times = tuple(sorted(d * far.uniform(0.2, 0.75) for _ in program[1:]))
            thing = small_light(w, "panel", {"program": program, "times": times})
            if not clash(w, thing, w.asked["times"], 0.0):
                w.things.append(thing)
                break


def plan_signs(w):
    rng = w.rng
    classes = PLAIN_SIGNS + ("speed",)
    names = []
    chosen = []
    if rng.random() < 0.9:
        truth, chosen = choose_set(rng, classes)
        w.asked["sign"] = (truth, chosen)
        names.append(rng.choice(SPEED_SIGNS) if truth == "speed" else truth)
    if "speed" not in chosen and rng.random() < 0.55:
        names.append(rng.choice(SPEED_SIGNS))
    elif chosen and rng.random() < 0.15:
        names.append(rng.choice([c for c in PLAIN_SIGNS if c not in chosen]))
    rng.shuffle(names)
    times = w.asked["times"]
    last = max((t for t in times if w.travelled(t) < w.turn_at - 0.5), default=times[0])
    usable = [t for t in times if t <= last]
    span = max(1, len(usable) - 2)
    for i, name in enumerate(names):
        left = i == 1 and w.lanes <= 2 and rng.random() < 0.35
        small = w.small(SMALL_SIGNS)
        small_px = w.far.uniform(*SMALL_SIGN_PX) if small else 0.0  # where it is nearest
        for attempt in range(30):
            x = -(w.half + 0.8) if left else w.half + rng.uniform(0.6, 1.1)
            near = max(8.0, abs(x - w.x0) * FOCAL / 0.455)
            size = rng.uniform(1.05, 1.25) * max(1.0, near / 11.0)  # wide roads have larger signs
            # Where it stands: near (but not past) the camera at one of the later usable frames.
            if w.turn == "straight" and w.travelled(w.duration) < 12:
                t = times[-1]
            else:
                k = 2 + (i * span // 2 if len(names) == 2 else rng.randrange(span))
                t = usable[min(k, len(usable) - 1)]
            z = w.travelled(t) + near + rng.uniform(0.2, 1.2 + 0.2 * attempt)
            if w.crossing_z - 1.0 < z < w.crossing_z + 2 * w.crossing_half + 1:
                z = w.crossing_z - rng.uniform(0.6, 1.2 + 0.1 * attempt)
            low = rng.uniform(1.9, 2.3) - (0.9 if attempt > 15 else 0.0)
            thing = Thing("sign", name, x, z, low, size, size, look={"pole": x, "small": small})
            for _ in range(3 if small else 0):  # the smaller it is, the longer it stays in the picture
                seen = [screen_box(w, thing, t) for t in times]
                # 0.24: the picture's part above the horizon
                widest = max((b[2] - b[0] for b in seen if b and b[2] > -0.5 and b[0] < 0.5 and b[3] > -0.24), default=0.1)
                thing.w = thing.h = thing.w * small_px / 448 / widest
            if not clash(w, thing, times, 0.02):
                break
        w.signs.append(name)
        w.things.append(thing)


def plan_arrows(w):
    rng = w.rng
    truth, chosen = choose_set(rng, sprites.ARROW_CLASSES)
    w.asked["lane"] = (truth, chosen)
    for i in range(w.lanes):
        w.arrows[i] = truth if i == w.lane else rng.choice([c for c in sprites.ARROW_CLASSES])
    w.arrow_step = rng.uniform(9.5, 11.5)
    if w.turn == "straight":
        w.arrow_phase = w.travelled(w.asked["frames"] / FPS - 0.4) + rng.uniform(4.6, 5.0)
    else:
        w.arrow_phase = w.crossing_z - ARROW_LENGTH - rng.uniform(1.5, 2.0)


def add_crosser(w):
    if w.crosser == "none":
        return
    rng, d = w.rng, w.duration
    z = w.zebra + rng.uniform(-0.5, 0.5)
    side = 1 if w.crosser_right else -1
    reach = min(4.2, 0.42 * (z - w.travelled(d)))
    # On the way in the middle of the clip, still in the picture at its end.
    begin, end = w.x0 - side * rng.uniform(4.5, 7.0), w.x0 + side * rng.uniform(1.5, reach)
    key = "motorcycle_side" if w.crosser == "motorcycle" else w.crosser
    width, height = SIZES[key]
    w.things.append(Thing(w.crosser, "crossing_right" if w.crosser_right else "crossing_left", begin, z, 0.0, width,
                          height, vx=(end - begin) / d, look={"facing": side}))


def screen_box(w, thing, t):
    """(x0, y0, x1, y1, depth) in units of the picture's width from its middle; None when behind or out of sight."""
    cx, cz, yaw = w.pose(t)
    x, z = thing.at(t)
    dx, dz = x - cx, z - cz
    right, depth = dx * math.cos(yaw) - dz * math.sin(yaw), dx * math.sin(yaw) + dz * math.cos(yaw)
    if depth < 2.0:
        return None
    s = FOCAL / depth
    return ((right - thing.w / 2) * s, (EYE - thing.y - thing.h) * s, (right + thing.w / 2) * s, (EYE - thing.y) * s,
            depth)


def covered(a, b):
    """The part of box a that box b, which is nearer, hides."""
    if a is None or b is None or b[4] > a[4]:
        return 0.0
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    return w * h / ((a[2] - a[0]) * (a[3] - a[1])) if w > 0 and h > 0 else 0.0


def clash(w, new, times, limit=0.12):
    """True when the new vehicle hides, or is hidden by, something that is asked about."""
    lights = [other for other in w.things if other.kind == "light"]
    if lights and times is not w.asked["times"] and clash_with(w, new, w.asked["times"], lights, 0.05):
        return True
    return clash_with(w, new, times, w.things, limit)


def clash_with(w, new, times, others, limit):
    for t in times:
        box = screen_box(w, new, t)
        for other in others:
            there = screen_box(w, other, t)
            if covered(there, box) > limit or covered(box, there) > limit:
                return True
    return False


def add_traffic(w):
    """Vehicles ahead, as many of each kind as was decided; each seen at the end, none hiding another."""
    rng = w.rng
    times = w.asked["times"]
    kind, number = w.counted
    wanted = [kind] * number if "count" in w.asked else []
    # Few others where the detector is to help: its first five boxes are all that is shown of a frame.
    room = (4 if w.far else 5) - len(wanted)
    for other in VEHICLES:
        if other != kind or "count" not in w.asked:
            n = max(0, min(room, rng.choice((0, 0, 0, 1, 1) if w.far else (0, 0, 1, 1, 2))))
            room -= n
            wanted += [other] * n
    before = len(w.things)
    for attempt in range(12):
        # What is counted must all find room, or large numbers would be rarer; the others give way.
        wanted.sort(key=lambda name: name != kind)
        if place(w, wanted, kind if "count" in w.asked else None, times):
            return
        del w.things[before:]
    w.asked.pop("count", None)


def place(w, wanted, needed, times):
    for name in wanted:
        for attempt in range(25):
            thing = vehicle(w, name, attempt)
            last = screen_box(w, thing, times[-1] if w.turn == "straight" else times[2])
            if last is None or last[0] < -0.49 or last[2] > 0.49:
                continue
            if w.turn != "straight" and too_close(w, thing):
                continue
            if not clash(w, thing, times[-2:] if attempt < 15 else times[-1:]):
                w.things.append(thing)
                break
        else:
            if name == needed:
                return False
    return True


def too_close(w, thing):
    """True when our turn would take us through it."""
    for t in w.asked["times"]:
        cx, cz, _ = w.pose(t)
        x, z = thing.at(t)
        if math.hypot(x - cx, z - cz) < 5.0:
            return True
    return False


def vehicle(w, name, attempt):
    rng, d = w.rng, w.duration
    width, height = SIZES[name]
    end = w.travelled(d)
    low = 8.0 if w.crosser == "none" else w.zebra - end + 2.5
    far = {"car": 26.0, "truck": 32.0, "motorcycle": 17.0}[name] * (0.85 if w.weather == "fog" else 1.0)
    dz = rng.uniform(low, max(far, low + 7))
    track = rng.random()
    vz, front = 0.0, False
    if w.turn != "straight":
        # Only what comes towards us or stands, so that nothing is in the way.
        dz = rng.uniform(10, 35)
        end = 0.0
    ahead = w.travelled(d) / d
    if track < 0.55 and w.turn == "straight":
        lane = rng.randrange(w.lanes)
        x = LANE * (lane + 0.5) + rng.uniform(-0.4, 0.4)
        if lane == w.lane and w.arrows:
            dz = max(dz, 13.5)
        vz = max(0.0, ahead + rng.uniform(-0.5, 0.3)) if not w.stop else ahead
    elif track < 0.85:
        lane = rng.randrange(w.lanes)
        x = -LANE * (lane + 0.5) + rng.uniform(-0.4, 0.4)
        vz, front = -rng.uniform(0.5, 3.5), True
        if attempt > 20:
            vz = 0.0
    else:
        side = rng.choice((-1, 1))
        x = side * (w.half + width / 2 + 0.2)
        front = side < 0
    z = end + dz - vz * d
    return Thing(name, "front" if front else "rear", x, z, 0.0, width, height, vz=vz, look={})


def add_people(w):
    rng = w.rng
    times = w.asked["times"]
    for _ in range(rng.choice((0, 0, 1, 1, 2) if w.far else (0, 1, 1, 2, 3))):
        side = rng.choice((-1, 1))
        width, height = SIZES["pedestrian"]
        thing = Thing("pedestrian", "walking", side * (w.half + rng.uniform(1.4, 2.6)),
                      w.travelled(w.duration) * rng.uniform(0.3, 1.0) + rng.uniform(7, 24), 0.0, width, height,
                      vz=rng.choice((-1.2, 1.2, 0.0)), look={"facing": 0})
        if not clash(w, thing, times[1::2]):
            w.things.append(thing)
