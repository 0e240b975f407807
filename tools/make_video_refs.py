#!/usr/bin/env python3
"""Makes tests/video/ref: tiny clips by the ffmpeg program, and beside each its frames as decord (where decord cannot, the
ffmpeg program) gives them, for tests/video/test_video.c. Needs ffmpeg with libx264, libx265, libvpx and SVT-AV1; decord.

    make_video_refs.py [FOLDER]

CLIP.ref, little endian: 16 bytes "lowbeam-video-1\\n"; 48 bytes yardstick and script, zero-padded; i64 n_total, n, width,
height; f64 frames a second; i64 index[n]; f64 time_s[n]; u8 pixels[n][height][width][3].
"""
import pathlib
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "checks"))

import numpy as np  # noqa: E402

from check_frames import formula, read_decord, read_ffmpeg  # noqa: E402
from frame_clips import BOTH, X264, Clip, make_clip  # noqa: E402

N_FRAMES = 3
SMALL = "testsrc2=s=64x48:r=30:d=1"

CLIPS = [
    Clip("h264_bframes.mp4", f"{X264} -g 10 -bf 3", SMALL),
    Clip("h264_long_gop.mp4", f"{X264} -g 300 -sc_threshold 0 -bf 2", "testsrc2=s=64x48:r=30:d=4"),
    Clip("h264_open_gop.mp4", f"{X264} -g 10 -bf 3 -x264-params open-gop=1", SMALL),
    Clip("h264_vfr.mp4", f"-vf select='not(mod(n\\,3))+not(mod(n\\,7))' -fps_mode vfr {X264} -g 6 -bf 2", SMALL),
    Clip("h264_422_10bit.mp4", f"{X264} -g 10 -pix_fmt yuv422p10le", SMALL),
    Clip("h264_709_full.mp4", f"-vf {BOTH.format('bt709', 'pc')} {X264} -colorspace bt709 -color_range pc", SMALL),
    # 40 high, so 40 wide when turned: of 48, decord 0.6.0 gives skewed rows (it takes a row of 192 bytes for four
    # pixels of 48 bytes, not for one of 144 with padding)
    Clip("h264_rotated.mp4", f"{X264} -g 10", "testsrc2=s=64x40:r=30:d=1", then="|-c copy -metadata:s:v rotate=90"),
    Clip("h264_short.mp4", f"{X264} -frames:v 2", SMALL),
    Clip("h264.ts", f"{X264} -g 10 -bf 2", SMALL, reference="ffmpeg"),  # decord rewinds to the wrong frame in TS
    Clip("hevc.mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=10:bframes=3", SMALL),
    Clip("vp9_odd.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 10 -b:v 100k", SMALL + ",scale=63:47"),
    Clip("av1.mp4", "-c:v libsvtav1 -preset 12 -g 10", "testsrc2=s=64x64:r=30:d=1", "ffmpeg"),  # decord has none
    Clip("mpeg4_bframes.avi", "-c:v mpeg4 -q:v 5 -g 10 -bf 2", SMALL),
    Clip("mjpeg.mov", "-c:v mjpeg -q:v 5 -pix_fmt yuvj420p", "testsrc2=s=64x48:r=10:d=1"),
]
BROKEN = [
    Clip("audio_only.m4a", "-vn -f lavfi -i sine=d=0.2 -map 1:a -c:a aac -b:a 32k", SMALL),
    # the index stands first, so that a cut leaves its beginning readable
    Clip("truncated.mp4", f"{X264} -g 10 -bf 2 -movflags +faststart", SMALL),
    Clip("no_index.mp4", f"{X264} -g 10", SMALL),
]


def write_reference(path, clip):
    frames, n_total, fps, times = read_decord(path) if clip.reference == "decord" else read_ffmpeg(path, clip.filters)
    times = np.asarray(times, np.float64)
    if len(times) != n_total or np.abs(times).max() > 1e9:
        times = np.arange(n_total) / fps
    index = formula(n_total, N_FRAMES)
    height, width, _ = frames[0].shape
    with open(f"{path}.ref", "wb") as out:
        out.write(b"lowbeam-video-1\n" + f"{clip.reference}, make_video_refs.py".encode().ljust(48, b"\0"))
        out.write(struct.pack("<4qd", n_total, N_FRAMES, width, height, fps))
        out.write(np.asarray(index, "<i8").tobytes() + times[index].astype("<f8").tobytes())
        for i in index:
            out.write(np.ascontiguousarray(frames[i]).tobytes())
    print(f"{path.name}: {n_total} frames of {width}x{height}, {path.stat().st_size} bytes")


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "video" / "ref"
    folder.mkdir(parents=True, exist_ok=True)
    for clip in CLIPS:
        path = make_clip(clip, folder)
        write_reference(path, clip)
    for clip in BROKEN:
        (folder / clip.name).unlink(missing_ok=True)  # or it would be cut again
        path = make_clip(clip, folder)
        if clip.name != "audio_only.m4a":
            path.write_bytes(path.read_bytes()[:path.stat().st_size * 6 // 10])


if __name__ == "__main__":
    main()
