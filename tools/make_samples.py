#!/usr/bin/env python3
"""Draws the sample clips and writes the questions about them: samples/clips/* and samples/questions.json.

    make_samples.py OUT_DIR

A road in perspective as a dashcam sees it, with a sign, a light, a car or arrows, drawn by this script alone; so the
clips are ours and under lowbeam's licence (MIT). Needs Pillow and the program ffmpeg with libx264 and libvpx-vp9.
"""
import argparse
import json
import os
import subprocess

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, RATE, SECONDS = 640, 360, 15, 3
HORIZON, SCALE = 150, 2  # drawn twice as large and reduced: smooth edges


def place(x, z, height=0.0):
    """A point of the world, x metres to the right, z ahead, height above the road, on the large canvas."""
    f = 330 / max(z, 0.5)
    return SCALE * (WIDTH / 2 + f * x), SCALE * (HORIZON + f * (1.3 - height))


def quad(draw, x0, x1, z0, z1, fill):
    draw.polygon([place(x0, z0), place(x1, z0), place(x1, z1), place(x0, z1)], fill=fill)


def disc(draw, x, z, height, radius, fill):
    cx, cy = place(x, z, height)
    r = SCALE * 330 / max(z, 0.5) * radius
    draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=fill)
    return cx, cy, r


def road(draw, t, sky, n_lanes=2):
    draw.rectangle([0, 0, SCALE * WIDTH, SCALE * HORIZON], fill=sky)
    draw.rectangle([0, SCALE * HORIZON, SCALE * WIDTH, SCALE * HEIGHT], fill=(92, 116, 70))
    half = 3.5 * n_lanes / 2
    quad(draw, -half - 0.5, half + 0.5, 1, 400, (84, 84, 88))
    for x in (-half, half):
        quad(draw, x - 0.08, x + 0.08, 1, 400, (235, 235, 235))
    for lane in range(1, n_lanes):
        x = -half + 3.5 * lane
        for k in range(40):
            z = 1 + (k * 6 - 12 * t) % 240
            quad(draw, x - 0.08, x + 0.08, z, z + 2.5, (240, 240, 240))
    for k in range(20):  # posts beside the road show the speed
        z = 2 + (k * 12 - 12 * t) % 240
        for x in (-half - 2, half + 2):
            quad_up(draw, x, z, 0.0, 0.9, 0.06, (200, 200, 205))


def quad_up(draw, x, z, low, high, half, fill):
    draw.polygon([place(x - half, z, low), place(x + half, z, low), place(x + half, z, high),
                  place(x - half, z, high)], fill=fill)


def speed_sign(draw, t):
    road(draw, t, (168, 203, 235))
    z = 44 - 12 * t
    quad_up(draw, 5, z, 0, 2.2, 0.05, (130, 130, 135))
    disc(draw, 5, z, 2.7, 0.75, (205, 25, 35))
    cx, cy, r = disc(draw, 5, z, 2.7, 0.58, (250, 250, 250))
    font = ImageFont.load_default(size=max(6, 1.15 * r))
    draw.text((cx, cy), "50", fill=(15, 15, 15), font=font, anchor="mm")


def traffic_light(draw, t):
    road(draw, 0.35 * min(t, 1.0), (188, 206, 222))
    quad(draw, -3.5, 3.5, 8.6, 9.1, (240, 240, 240))  # stop line
    z, x = 12, 3.2
    quad_up(draw, x, z, 0, 2.4, 0.06, (70, 70, 74))
    quad_up(draw, x, z, 2.4, 4.6, 0.42, (28, 28, 30))
    red = t < 2
    for height, on, lit, dark in ((4.2, red, (255, 40, 30), (70, 20, 20)), (3.5, False, None, (72, 62, 18)),
                                  (2.8, not red, (60, 240, 110), (18, 66, 34))):
        disc(draw, x, z, height, 0.28, lit if on else dark)


def car_ahead(draw, t):
    road(draw, t, (214, 205, 196))
    braking = t >= 1
    z = 13 - (2.5 * (t - 1) if braking else 0)
    quad_up(draw, 1.75, z, 0.25, 1.0, 0.9, (36, 74, 150))
    draw.polygon([place(1.0, z, 1.0), place(2.5, z, 1.0), place(2.3, z, 1.5), place(1.2, z, 1.5)], fill=(30, 40, 60))
    for x in (1.0, 2.5):
        quad_up(draw, x, z, 0.75, 0.92, 0.14, (255, 50, 40) if braking else (110, 24, 24))
        quad_up(draw, x, z, 0, 0.3, 0.14, (20, 20, 20))
    z = 40 - 12 * t  # no entry, on the left
    if z > 2:
        quad_up(draw, -5, z, 0, 2.0, 0.05, (130, 130, 135))
        cx, cy, r = disc(draw, -5, z, 2.6, 0.75, (200, 20, 30))
        draw.rectangle([cx - 0.65 * r, cy - 0.16 * r, cx + 0.65 * r, cy + 0.16 * r], fill=(250, 250, 250))


def lane_arrows(draw, t):
    road(draw, t, (150, 170, 200), n_lanes=3)
    for k in range(6):
        z = 3 + (k * 15 - 12 * t) % 90
        for lane, turn in ((-3.5, 0), (0, 0), (3.5, 1)):
            quad(draw, lane - 0.12, lane + 0.12, z, z + 3, (240, 240, 240))
            if turn:
                quad(draw, lane, lane + 0.8, z + 2.4, z + 3, (240, 240, 240))
                draw.polygon([place(lane + 0.8, z + 1.8), place(lane + 0.8, z + 3.6), place(lane + 1.4, z + 2.7)],
                             fill=(240, 240, 240))
            else:
                draw.polygon([place(lane - 0.45, z + 3), place(lane + 0.45, z + 3), place(lane, z + 4.6)],
                             fill=(240, 240, 240))
    z = 60 - 12 * t  # a blue board above the road
    draw.polygon([place(-2.5, z, 7.5), place(2.5, z, 7.5), place(2.5, z, 5.2), place(-2.5, z, 5.2)], fill=(20, 70, 170))
    cx, cy = place(0, z, 6.3)
    r = SCALE * 330 / z
    draw.line([cx, cy + 0.8 * r, cx, cy - 0.3 * r], fill=(250, 250, 250), width=max(2, int(0.25 * r)))
    draw.polygon([(cx - 0.5 * r, cy - 0.2 * r), (cx + 0.5 * r, cy - 0.2 * r), (cx, cy - 0.95 * r)], fill=(250, 250, 250))


CLIPS = {"speed_sign.mp4": speed_sign, "traffic_light.mp4": traffic_light, "car_ahead.mp4": car_ahead,
         "lane_arrows.webm": lane_arrows}
CODEC = {"mp4": ["-c:v", "libx264", "-preset", "veryslow", "-crf", "24", "-g", "30", "-movflags", "+faststart"],
         "webm": ["-c:v", "libvpx-vp9", "-crf", "34", "-b:v", "0", "-deadline", "good", "-cpu-used", "1"]}

QUESTIONS = [
    ("speed_sign.mp4", "Biển báo bên phải đường quy định điều gì?",
     ["Tốc độ tối đa cho phép 50 km/h", "Tốc độ tối thiểu 50 km/h", "Cấm đi ngược chiều", "Hết hạn chế tốc độ"], 0, [1.5]),
    ("speed_sign.mp4", "Ngay sau biển báo này, xe đang chạy 60 km/h thì người lái phải làm gì?",
     ["Giữ nguyên tốc độ", "Giảm tốc độ xuống không quá 50 km/h", "Tăng tốc độ", "Dừng xe ngay"], 1, [1.5, 2.5]),
    ("traffic_light.mp4", "Ở đầu đoạn video, đèn tín hiệu đang có màu gì?",
     ["Xanh", "Vàng", "Đỏ", "Không có đèn tín hiệu"], 2, [0.5]),
    ("traffic_light.mp4", "Cuối đoạn video, xe có được phép đi thẳng qua vạch dừng không?",
     ["Không, vì đèn đang đỏ", "Không, vì có biển cấm", "Không, vì đèn đang vàng", "Có, vì đèn đã chuyển sang xanh"], 3,
     [2.0, 2.8]),
    ("car_ahead.mp4", "Xe ô tô phía trước đang làm gì ở nửa sau đoạn video?",
     ["Phanh", "Tăng tốc", "Rẽ trái", "Lùi vào lề đường"], 0, [1.5, 2.5]),
    ("car_ahead.mp4", "Biển báo bên trái đường có ý nghĩa gì?",
     ["Cấm dừng xe", "Cấm đi ngược chiều", "Đường ưu tiên", "Cấm rẽ trái"], 1, [1.0, 2.0]),
    ("lane_arrows.webm", "Theo mũi tên trên mặt đường, làn ngoài cùng bên phải dành cho hướng nào?",
     ["Đi thẳng", "Rẽ trái", "Quay đầu", "Rẽ phải"], 3, [1.0]),
    ("lane_arrows.webm", "Đường trong video có mấy làn xe cùng chiều?",
     ["Một làn", "Hai làn", "Ba làn", "Năm làn"], 2, [0.5, 2.0])]


def encode(path, draw_frame):
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r",
               str(RATE), "-i", "-", "-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709",
               "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv", "-pix_fmt", "yuv420p",
               *CODEC[path.rsplit(".", 1)[1]], "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact",
               path]
    ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE)
    for i in range(RATE * SECONDS):
        picture = Image.new("RGB", (SCALE * WIDTH, SCALE * HEIGHT))
        draw_frame(ImageDraw.Draw(picture), i / RATE)
        ffmpeg.stdin.write(picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX).tobytes())
    ffmpeg.stdin.close()
    if ffmpeg.wait():
        raise SystemExit("failed: " + " ".join(command))
    print(f"{path} {os.path.getsize(path) / 1024:.0f} KiB")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    args = ap.parse_args()
    os.makedirs(os.path.join(args.out, "clips"), exist_ok=True)
    for name, draw_frame in CLIPS.items():
        encode(os.path.join(args.out, "clips", name), draw_frame)
    data = [{"id": f"sample_{i:04}", "question": text, "choices": [f"{c}. {x}" for c, x in zip("ABCD", choices)],
             "answer": f"{'ABCD'[answer]}. {choices[answer]}", "support_frames": frames, "video_path": f"clips/{name}"}
            for i, (name, text, choices, answer, frames) in enumerate(QUESTIONS, 1)]
    with open(os.path.join(args.out, "questions.json"), "w", encoding="utf-8") as file:
        json.dump({"__count__": len(data), "data": data}, file, ensure_ascii=False, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
