"""A clip of nine seconds whose streams say the same: a tone and words at 4 s to 5 s; written here, by real encoders."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

RATE, SECONDS = 15, 9
TONE = (4.0, 5.0)
CUES = ((500, 1000, "before"), (4000, 5000, "红色 lamp\\Nsecond line"), (6000, 6900, "between"))
"""ms, ms, words; the windows of two seconds begin at 0, 3.5 and 7 s, so the last cue lies between two of them."""
ASS = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize\r\n"
    b"Style: Default,Arial,16\r\n\r\n[Events]\r\n"
    b"Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)


def clip(form: str = "matroska", *, sound: bool = True, words: bool = True, late: float = 0.0) -> bytes:
    """``late``: seconds that the sound's first sample lies behind the first frame (the tone stays where it is)."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        seen: Any = container.add_stream("mpeg4", rate=RATE)
        seen.width, seen.height, seen.pix_fmt = 64, 48, "yuv420p"
        heard: Any = container.add_stream("aac", rate=16_000) if sound else None
        if heard:
            heard.layout = "mono"
        read: Any = container.add_stream("subrip" if form == "matroska" else "mov_text") if words else None
        if read:
            read.codec_context.subtitle_header, read.time_base = ASS, Fraction(1, 1000)
        container.start_encoding()
        for number in range(RATE * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(seen.encode(frame))
        container.mux(seen.encode())
        if heard:
            t = late + np.arange(int(16_000 * (SECONDS - late))) / 16_000
            _sound(container, heard, 0.5 * np.sin(2 * np.pi * 440 * t) * ((t >= TONE[0]) & (t < TONE[1])), late)
        if read:
            _words(container, read)
    return out.getvalue()


def noisy(frames: Sequence[np.ndarray], seed: int) -> bytes:
    """An MP4 of these frames (h, w, 3) uint8 whose sound is noise."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        seen: Any = container.add_stream("mpeg4", rate=RATE)
        seen.height, seen.width, seen.pix_fmt = *frames[0].shape[:2], "yuv420p"
        heard: Any = container.add_stream("aac", rate=16_000)
        heard.layout = "mono"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(seen.encode(frame))
        container.mux(seen.encode())
        _sound(container, heard, np.random.default_rng(seed).uniform(-0.5, 0.5, 1024 * len(frames)), 0.0)
    return out.getvalue()


def _sound(container: Any, stream: Any, wave: np.ndarray, late: float) -> None:
    import av

    samples = wave.astype(np.float32)[None]
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(samples[:, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, start + int(late * 16_000), Fraction(1, 16_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _words(container: Any, stream: Any) -> None:
    from av.subtitles.subtitle import SubtitleSet

    for begin, end, text in CUES:
        line = SubtitleSet.create(f"0,0,Default,,0,0,0,,{text}".encode(), 0, end - begin, begin * 1000)
        packet = stream.codec_context.encode_subtitle(line)
        packet.stream, packet.pts, packet.dts, packet.duration = stream, begin, begin, end - begin
        packet.time_base = Fraction(1, 1000)
        container.mux(packet)
