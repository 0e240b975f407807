"""The clips that check_frames.py compares: name (with the container's ending), ffmpeg arguments, who is the yardstick."""
import dataclasses
import subprocess


@dataclasses.dataclass
class Clip:
    name: str
    encode: str                # ffmpeg arguments after the input
    source: str = "testsrc2=s=320x180:r=30:d=3"
    reference: str = "decord"  # or "ffmpeg"; why stands beside each
    filters: str = "scale=flags=bilinear"
    hidden: int = 0            # first frames that are in the file but, by its edit list, not shown
    then: str = ""             # a second pass, stream copy, with these arguments before -i and after it, split by "|"


X264 = "-c:v libx264 -preset veryfast"
ODD = "testsrc2=s=320x180:r=30:d=1,scale=161:91,format=yuv444p"
# decord 0.6.0 rewinds by a seek, which lands late in these containers: its first frame is the second key frame's
TS = "ffmpeg"
BOTH = "scale=out_color_matrix={0}:out_range={1}"

CLIPS = [
    Clip("h264_bframes.mp4", f"{X264} -g 30 -bf 3"),
    Clip("h264_bframes.mkv", f"{X264} -g 30 -bf 3"),
    Clip("h264_bframes.mov", f"{X264} -g 30 -bf 3"),
    Clip("h264_bframes.ts", f"{X264} -g 30 -bf 3", reference=TS),
    Clip("h264_intra.mp4", f"{X264} -g 1"),
    Clip("h264_long_gop.mp4", f"{X264} -g 300 -keyint_min 300 -sc_threshold 0 -bf 2", "testsrc2=s=320x180:r=30:d=12"),
    Clip("h264_open_gop.mp4", f"{X264} -g 20 -bf 3 -x264-params open-gop=1"),
    Clip("h264_open_gop.ts", f"{X264} -g 20 -bf 3 -x264-params open-gop=1", reference=TS),
    Clip("h264_intra_refresh.mp4", f"{X264} -g 20 -x264-params intra-refresh=1"),
    Clip("h264_pyramid.mp4", f"{X264} -g 48 -bf 8 -x264-params b-pyramid=normal:ref=5"),
    Clip("h264_audio.mp4", f"-f lavfi -i sine=d=3 {X264} -g 30 -c:a aac -shortest"),
    Clip("h264_frag.mp4", f"{X264} -g 15 -movflags +frag_keyframe+empty_moov"),
    Clip("h264_ntsc.mp4", f"{X264} -g 30 -bf 2", "testsrc2=s=320x180:r=30000/1001:d=3"),
    Clip("h264_15fps.mp4", f"{X264} -g 30 -bf 2", "testsrc2=s=320x180:r=15:d=3"),
    Clip("h264_60fps.mp4", f"{X264} -g 60 -bf 2", "testsrc2=s=320x180:r=60:d=2"),
    Clip("h264_vfr.mp4", f"-vf select='not(mod(n\\,3))+not(mod(n\\,7))' -fps_mode vfr {X264} -g 12 -bf 2"),
    Clip("h264_vfr.mkv", f"-vf select='lt(n\\,20)+not(mod(n\\,9))' -fps_mode vfr {X264} -g 12 -bf 2"),
    Clip("h264_one_frame.mp4", f"-frames:v 1 {X264}"),
    Clip("h264_three_frames.mp4", f"-frames:v 3 {X264}"),
    Clip("h264_odd_444.mp4", f"{X264} -g 30 -pix_fmt yuv444p", ODD),
    Clip("hevc_odd_444_10bit.mp4", "-c:v libx265 -preset ultrafast -pix_fmt yuv444p10le -x265-params log-level=none",
         ODD),
    Clip("h264_wide_318x178.mp4", f"{X264} -g 30", "testsrc2=s=318x178:r=30:d=1"),
    Clip("h264_422.mp4", f"{X264} -pix_fmt yuv422p"),
    Clip("h264_444.mp4", f"{X264} -pix_fmt yuv444p"),
    Clip("h264_420_10bit.mp4", f"{X264} -pix_fmt yuv420p10le"),
    Clip("h264_422_10bit.mp4", f"{X264} -pix_fmt yuv422p10le"),
    Clip("h264_444_10bit.mp4", f"{X264} -pix_fmt yuv444p10le"),
    Clip("h264_rgb.mp4", "-c:v libx264rgb -preset veryfast -pix_fmt rgb24"),
    Clip("h264_grey.mp4", f"{X264} -pix_fmt gray"),
    Clip("h264_709.mp4", f"-vf {BOTH.format('bt709', 'tv')} {X264} -colorspace bt709 -color_range tv"),
    Clip("h264_709_full.mp4", f"-vf {BOTH.format('bt709', 'pc')} {X264} -colorspace bt709 -color_range pc"),
    Clip("h264_601_full.mp4", f"-vf {BOTH.format('bt601', 'pc')} {X264} -colorspace smpte170m -color_range pc"),
    Clip("h264_interlaced.mp4", f"{X264} -flags +ildct+ilme -x264-params tff=1"),
    # cut without recoding: six frames before the cut are needed to decode and hidden; decord shifts the first group of
    # pictures by them when it reads in turn, and not the later groups when it seeks
    Clip("h264_cut.mp4", f"{X264} -g 30 -bf 2", then="-ss 1.2|-c copy", reference="ffmpeg", hidden=6),
    Clip("hevc.mp4", "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=30:bframes=3"),
    Clip("hevc.mkv", "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=20:bframes=3:open-gop=1"),
    Clip("hevc.ts", "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=30:bframes=3", reference=TS),
    Clip("hevc_10bit.mp4", "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -x265-params log-level=none"),
    Clip("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 30 -b:v 500k"),
    Clip("vp9_altref.webm", "-c:v libvpx-vp9 -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 16 -g 40 -b:v 300k",
         "testsrc2=s=160x90:r=30:d=3"),
    Clip("vp9_10bit.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuv420p10le -b:v 500k",
         "testsrc2=s=160x90:r=30:d=1"),
    Clip("vp9_odd.webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 500k", ODD),
    # decord's wheel has no AV1 decoder
    Clip("av1.mp4", "-c:v libsvtav1 -preset 12 -g 30", "testsrc2=s=320x180:r=30:d=2", "ffmpeg"),
    Clip("av1.mkv", "-c:v libsvtav1 -preset 12 -g 30", "testsrc2=s=320x180:r=30:d=2", "ffmpeg"),
    Clip("av1.webm", "-c:v libsvtav1 -preset 12 -g 30", "testsrc2=s=320x180:r=30:d=2", "ffmpeg"),
    Clip("av1_10bit.mp4", "-c:v libsvtav1 -preset 12 -pix_fmt yuv420p10le", "testsrc2=s=160x90:r=30:d=1", "ffmpeg"),
    Clip("mpeg4.avi", "-c:v mpeg4 -q:v 3 -g 30"),
    Clip("mpeg4_bframes.avi", "-c:v mpeg4 -q:v 3 -g 30 -bf 2"),
    Clip("mpeg4_bframes.mp4", "-c:v mpeg4 -q:v 3 -g 30 -bf 2"),
    Clip("mpeg4.mkv", "-c:v mpeg4 -q:v 3 -g 30 -bf 2"),
    Clip("xvid.avi", "-c:v libxvid -q:v 3 -g 30 -bf 2"),
    Clip("h264.avi", f"{X264} -g 30 -bf 0"),
    Clip("h264_bframes.avi", f"{X264} -g 30 -bf 2"),
    Clip("mjpeg.mov", "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p"),
    Clip("mjpeg.avi", "-c:v mjpeg -q:v 3 -pix_fmt yuvj422p"),
    Clip("mjpeg_444.mkv", "-c:v mjpeg -q:v 3 -pix_fmt yuvj444p"),
    Clip("mjpeg_odd.avi", "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p", ODD),
    Clip("mpeg2.ts", "-c:v mpeg2video -q:v 3 -g 15 -bf 2", reference=TS),
    Clip("mpeg2.mpg", "-c:v mpeg2video -q:v 3 -g 15 -bf 2", reference=TS),
    # no times at all in a raw stream; decord refuses it
    Clip("raw.h264", f"{X264} -g 30 -bf 0", reference="ffmpeg"),
    Clip("rotated_90.mp4", f"{X264} -g 30 -bf 2", then="|-c copy -metadata:s:v rotate=90"),
    Clip("rotated_180.mp4", f"{X264} -g 30 -bf 2", then="|-c copy -metadata:s:v rotate=180"),
    Clip("rotated_270.mp4", f"{X264} -g 30 -bf 2", then="|-c copy -metadata:s:v rotate=270"),
]


def make_clip(clip, work):
    path = work / clip.name
    if path.exists():
        return path
    temporary = work / ("making_" + clip.name)
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", clip.source, *clip.encode.split(), "-threads",
                    "2", str(temporary)], check=True, capture_output=True)
    if clip.then:
        before, after = clip.then.split("|")
        second = work / ("cut_" + clip.name)
        subprocess.run(["ffmpeg", "-v", "error", "-y", *before.split(), "-i", str(temporary), *after.split(),
                        str(second)], check=True, capture_output=True)
        temporary.unlink()
        temporary = second
    temporary.rename(path)
    return path
