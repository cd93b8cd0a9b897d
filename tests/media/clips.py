"""Small clips for tests: frame k is known by its brightness."""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
import numpy as np

FORMS = {
    "mp4": ("mp4", "libx264"),
    "mov": ("mov", "mpeg4"),
    "mkv": ("matroska", "libx264"),
    "webm": ("webm", "libvpx"),
    "avi": ("avi", "mpeg4"),
}


def brightness(k: int, frames: int) -> float:
    """The grey value of frame k."""
    return 20 + 215 * k / max(frames - 1, 1)


def ramp(frames: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """``frames`` plain frames (h, w) that get brighter."""
    return [np.full((*size, 3), round(brightness(k, frames)), np.uint8) for k in range(frames)]


def encoded(frames: Sequence[np.ndarray], fps: int = 15, form: str = "mp4", rotated: int = 0, **options: str) -> bytes:
    """Frames (h, w, 3) uint8 as a file; ``options`` go to the container."""
    container, codec = FORMS[form]
    out = io.BytesIO()
    gop = options.pop("g", "")
    with av.open(out, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = *frames[0].shape[1::-1], "yuv420p", 1
        stream.options = {"g": gop} if gop else {}
        if rotated:
            stream.set_display_rotation(rotated)
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return out.getvalue()


def song(cover: bool = False) -> bytes:
    """An MP4 that holds sound only."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=16_000)
        for k in range(8):
            sound = av.AudioFrame.from_ndarray(np.full((1, 1024), 0.1 * k, np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 16_000, 1024 * k
            for packet in stream.encode(sound):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return out.getvalue()


def patched(data: bytes, box: bytes, offset: int, value: int, width: int = 4) -> bytes:
    """An MP4 in which ``value`` stands at ``offset`` of the first ``box``'s content."""
    at = data.index(box) + 4 + offset
    return data[:at] + value.to_bytes(width, "big") + data[at + width :]
