"""Drawn dashcam clips with questions in Vietnamese: from scene import draw_clip; clip = draw_clip(seed)."""
from .clip import HEIGHT, WIDTH, Clip, all_frames, draw_clip
from .questions import Question
from .sprites import ARROW_CLASSES, SIGN_CLASSES

__all__ = ["ARROW_CLASSES", "Clip", "HEIGHT", "Question", "SIGN_CLASSES", "WIDTH", "all_frames", "draw_clip"]
