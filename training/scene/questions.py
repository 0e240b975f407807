"""Questions in Vietnamese about a planned world, with choices whose letters are shuffled."""
import random
from dataclasses import dataclass

from . import world as W
from . import sprites

SIGN_NAMES = {
    "no_entry": "Cấm đi ngược chiều", "stop": "Dừng lại", "no_left": "Cấm rẽ trái", "no_right": "Cấm rẽ phải",
    "no_parking": "Cấm đỗ xe", "children": "Trẻ em", "curve": "Chỗ ngoặt nguy hiểm", "crossroad": "Giao nhau",
    "must_straight": "Chỉ được đi thẳng", "must_left": "Chỉ được rẽ trái", "must_right": "Chỉ được rẽ phải",
    "roundabout": "Vòng xuyến", "crosswalk": "Đường người đi bộ sang ngang", "speed": "Giới hạn tốc độ",
}
COLOURS = {"red": "Đỏ", "yellow": "Vàng", "green": "Xanh"}
PROGRAMS = {
    ("red",): "Luôn đỏ", ("green",): "Luôn xanh", ("red", "green"): "Đỏ rồi xanh",
    ("green", "yellow"): "Xanh rồi vàng", ("green", "yellow", "red"): "Xanh, vàng rồi đỏ",
    ("red", "green", "yellow"): "Đỏ, xanh rồi vàng",
}
ARROWS = {"straight": "Đi thẳng", "left": "Rẽ trái", "right": "Rẽ phải", "straight_left": "Đi thẳng và rẽ trái",
          "straight_right": "Đi thẳng và rẽ phải"}
TURNS = {"straight": "Đi thẳng", "left": "Rẽ trái", "right": "Rẽ phải"}
CROSSERS = {"pedestrian": "Người đi bộ", "bicycle": "Xe đạp", "motorcycle": "Xe máy", "none": "Không có ai"}
WEATHERS = {"clear": "Quang đãng", "rain": "Trời mưa", "fog": "Sương mù"}
TIMES = {"day": "Ban ngày", "dusk": "Hoàng hôn", "night": "Ban đêm"}
VEHICLES = {"car": "ô tô con", "truck": "xe tải", "motorcycle": "xe máy"}
ACTIONS = {"left": "rẽ trái", "right": "rẽ phải", "straight": "đi thẳng", "park": "đỗ xe", "enter": "đi vào đường này"}
FORBIDS = {"no_left": "left", "no_right": "right", "no_parking": "park", "no_entry": "enter"}
ORDERS = {"must_left": "left", "must_right": "right", "must_straight": "straight"}
TEXTS = {
    "sign": ("Biển báo nào xuất hiện trong video?", "Trong video có biển báo nào sau đây?",
             "Video cho thấy biển báo nào?", "Biển báo bên đường là biển gì?"),
    "speed": ("Biển báo giới hạn tốc độ là bao nhiêu?", "Tốc độ tối đa cho phép theo biển báo là bao nhiêu?",
              "Xe được chạy tối đa bao nhiêu km/h?"),
    "light": ("Đèn tín hiệu ở cuối video có màu gì?", "Khi video kết thúc, đèn giao thông màu gì?",
              "Màu đèn tín hiệu ở khung hình cuối là gì?"),
    "change": ("Đèn tín hiệu thay đổi như thế nào?", "Thứ tự màu của đèn giao thông trong video là gì?",
               "Đèn giao thông lần lượt có màu nào?"),
    "lane": ("Mũi tên trên làn của xe cho phép đi hướng nào?", "Làn đường xe đang đi được phép đi hướng nào?",
             "Theo mũi tên trên mặt đường, xe được đi hướng nào?"),
    "turn": ("Xe đi theo hướng nào?", "Trong video, xe quay phim rẽ hướng nào?", "Xe của chúng ta đã đi như thế nào?"),
    "cross": ("Ai đi ngang qua đường trước xe?", "Đối tượng nào cắt ngang đường trong video?",
              "Có gì băng qua đường phía trước xe?"),
    "heading": ("Đối tượng phía trước băng qua đường theo hướng nào?", "Người phía trước sang đường từ phía nào?"),
    "weather": ("Thời tiết trong video như thế nào?", "Điều kiện thời tiết trong video là gì?",
                "Trời trong video ra sao?"),
    "time": ("Video được quay vào lúc nào?", "Thời điểm trong video là khi nào?",
             "Cảnh trong video diễn ra vào lúc nào?"),
    "count": ("Có bao nhiêu {} ở cuối video?", "Ở khung hình cuối có mấy chiếc {}?",
              "Đếm số {} nhìn thấy khi video kết thúc."),
    "rule_sign": ("Theo biển báo, xe có được phép {} không?", "Biển báo trong video có cho phép xe {} không?"),
    "rule_speed": ("Theo biển báo, xe có được chạy {} km/h không?", "Chạy {} km/h ở đây có đúng luật không?"),
    "rule_light": ("Theo đèn tín hiệu ở cuối video, xe có được đi tiếp không?",
                   "Khi video kết thúc, đèn có cho phép xe đi không?"),
    "rule_lane": ("Theo mũi tên trên làn của mình, xe có được {} không?", "Làn xe đang đi có cho phép {} không?"),
}


@dataclass
class Question:
    kind: str
    text: str
    choices: list  # "A. ...", ...
    answer: int  # index of the right choice
    support_frames: list  # seconds
    label: str = ""  # the right choice without its letter


def make(rng, kind, template, truth, chosen, names, support, fill=""):
    chosen = list(chosen)
    rng.shuffle(chosen)
    text = rng.choice(TEXTS[template]).format(fill)
    choices = [f"{'ABCD'[i]}. {names(c)}" for i, c in enumerate(chosen)]
    return Question(kind, text, choices, chosen.index(truth), support, names(truth))


def ask(w, times, seen, seed, counted):
    """times: seconds of the frames; seen: thing's index -> times at which it is well visible; counted: how many of what is
    to be counted the last frame shows, which with other than 8 frames may be another than was planned: then that question
    is left out. -> list of Question."""
    rng = random.Random(seed ^ 0x5EED)
    out = []
    last = [round(times[-1], 2)]
    sign_times = {}
    light_times = [round(t, 2) for t in times]
    crosser_times = last
    for i, thing in enumerate(w.things):
        if thing.kind == "sign":
            sign_times[thing.attr] = seen.get(i, [])
        if thing.attr.startswith("crossing"):
            crosser_times = seen.get(i) or last

    def good(name):
        return len(sign_times.get(name, ())) >= 2

    speed = next((s for s in w.signs if s.startswith("speed_")), None)
    if "sign" in w.asked:
        truth, chosen = w.asked["sign"]
        name = speed if truth == "speed" else truth
        if good(name):
            out.append(make(rng, "sign", "sign", truth, chosen, SIGN_NAMES.get, sign_times[name]))
    if speed and good(speed):
        truth, chosen = W.choose_set(rng, sprites.SPEEDS, truth=int(speed[6:]))
        out.append(make(rng, "speed", "speed", truth, chosen, lambda v: f"{v} km/h", sign_times[speed]))
    if w.program:
        end = w.program[-1]
        truth, chosen = W.choose_set(rng, COLOURS, truth=end)
        out.append(make(rng, "light", "light", end, chosen, COLOURS.get, last))
        truth, chosen = W.choose_set(rng, PROGRAMS, truth=w.program)
        out.append(make(rng, "change", "change", w.program, chosen, PROGRAMS.get, light_times))
    arrow_times = seen.get("arrow", [])
    if "lane" in w.asked and len(arrow_times) >= 2:
        truth, chosen = w.asked["lane"]
        out.append(make(rng, "lane", "lane", truth, chosen, ARROWS.get, arrow_times))
    if w.asked["turn"]:
        truth, chosen = W.choose_set(rng, TURNS, truth=w.turn)
        out.append(make(rng, "turn", "turn", truth, chosen, TURNS.get, light_times[-3:]))
    if w.turn == "straight":
        if w.crosser != "none" and rng.random() < 0.3:
            names = {True: "Từ trái sang phải", False: "Từ phải sang trái"}
            out.append(make(rng, "cross", "heading", w.crosser_right, [True, False], names.get, crosser_times))
        else:
            # "None" is kept as rare as the others are after the branch above.
            if w.crosser != "none" or rng.random() < 0.7:
                truth, chosen = W.choose_set(rng, CROSSERS, truth=w.crosser)
                out.append(make(rng, "cross", "cross", truth, chosen, CROSSERS.get, crosser_times))
    if "count" in w.asked and counted == w.counted[1]:
        kind, number = w.counted
        out.append(make(rng, "count", "count", number, w.asked["count_set"], str, last, VEHICLES[kind]))
    if rng.random() < 0.5:
        truth, chosen = W.choose_set(rng, WEATHERS, truth=w.weather)
        out.append(make(rng, "weather", "weather", truth, chosen, WEATHERS.get, light_times[:1]))
    else:
        truth, chosen = W.choose_set(rng, TIMES, truth=w.time)
        out.append(make(rng, "weather", "time", truth, chosen, TIMES.get, light_times[:1]))
    rule = ask_rule(rng, w, good, sign_times, speed, last, arrow_times)
    if rule:
        out.append(rule)
    return out


def ask_rule(rng, w, good, sign_times, speed, last, arrow_times):
    """May we ...? Yes and no are equally likely for each wording: the coin is tossed before the action is picked."""
    options = []
    yes = rng.random() < 0.5
    for name in w.signs:
        if not good(name):
            continue
        if name in FORBIDS:
            # One such sign alone, so that what it does not forbid is allowed.
            if sum(s in FORBIDS or s in ORDERS for s in w.signs) == 1:
                action = rng.choice([a for a in FORBIDS.values() if a != FORBIDS[name]]) if yes else FORBIDS[name]
                options.append(("rule_sign", yes, ACTIONS[action], sign_times[name]))
        elif name in ORDERS and sum(s in FORBIDS or s in ORDERS for s in w.signs) == 1:
            action = ORDERS[name] if yes else rng.choice([a for a in ORDERS.values() if a != ORDERS[name]])
            options.append(("rule_sign", yes, ACTIONS[action], sign_times[name]))
    if speed and good(speed):
        # The speed asked about lies between two limits; the limit mirrored at it is equally likely.
        level, gap = sprites.SPEEDS.index(int(speed[6:])), rng.randrange(4)
        if 0 <= 2 * gap + 1 - level < 5:
            options.append(("rule_speed", level > gap, str((35, 45, 55, 70)[gap]), sign_times[speed]))
    if w.program and w.program[-1] != "yellow":
        options.append(("rule_light", w.program[-1] == "green", "", last))
    arrow = w.arrows.get(w.lane)
    if arrow and arrow != "straight" and len(arrow_times) >= 2:
        side = "left" if arrow.endswith("left") else "right"
        other = "right" if side == "left" else "left"
        options.append(("rule_lane", yes, ACTIONS[side if yes else other], arrow_times))
    if not options:
        return None
    template, truth, fill, support = rng.choice(options)
    yes_text, no_text = rng.choice((("Có", "Không"), ("Được phép", "Không được phép")))
    return make(rng, "rule", template, truth, [True, False], {True: yes_text, False: no_text}.get, support, fill)
