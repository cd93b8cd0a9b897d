"""Two-second product clips: motion and speed are planted; the product's look is the item's own.

160 px, 15 frames a second, H.264. One encoder thread, so that the same frames give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from fusionrec.demo import pictures

SIZE, FPS, SECONDS = 160, 15, 2.0
SPEEDS = {"slow": 0.5, "medium": 1.0, "fast": 2.0}


def _path(rng: np.random.Generator, motion: str, t: np.ndarray, speed: float) -> tuple[np.ndarray, ...]:
    """(dx, dy, zoom, angle) over time t (T,) in seconds; shifts in shares of the frame."""
    phase, sign, slope = rng.uniform(0, 1), float(rng.choice([-1, 1])), rng.uniform(-0.5, 0.5)
    dx, dy, zoom, angle = np.zeros_like(t), np.zeros_like(t), np.ones_like(t), np.zeros_like(t)
    if motion == "pan":
        dx = sign * 0.28 * (2 * np.abs((0.25 * speed * t + phase) % 1 * 2 - 1) - 1)
        dy = dx * slope
    elif motion == "zoom":
        zoom = np.exp(0.38 * np.sin(2 * np.pi * (0.25 * speed * t + phase)))
    elif motion == "spin":
        angle = sign * 2 * np.pi * 0.25 * speed * t + 0.3 * phase
    elif motion == "bounce":
        dy = 0.28 * (0.5 - np.abs(np.sin(np.pi * (0.8 * speed * t + phase))))
    return dx, dy, zoom, angle


def render(
    rng: np.random.Generator, shape: str, look: Mapping[str, str], motion: str, speed: str, pace: float = 1.0
) -> list[np.ndarray]:
    """The frames of one clip: T = 30 arrays (SIZE, SIZE, 3) uint8. ``pace`` multiplies the speed."""
    still = pictures.render(rng, shape, look, size=SIZE * 3 // 2, for_clip=True)
    # The background goes on beyond the picture, so that no edge of it ever moves through the frame.
    plate, zoomed_out = Image.fromarray(np.pad(still, ((SIZE, SIZE), (SIZE, SIZE), (0, 0)), mode="edge")), 1.5 * 0.92
    t = np.arange(round(FPS * SECONDS)) / FPS
    frames = []
    for dx, dy, zoom, angle in zip(*_path(rng, motion, t, SPEEDS[speed] * pace), strict=True):
        shake = rng.normal(0, 0.25, 2)
        c, s = np.cos(angle) * zoomed_out / zoom, np.sin(angle) * zoomed_out / zoom
        cx, cy = plate.width / 2 + 1.5 * SIZE * dx + shake[0], plate.height / 2 + 1.5 * SIZE * dy + shake[1]
        half = SIZE / 2
        affine = (c, -s, cx - c * half + s * half, s, c, cy - s * half - c * half)
        frame = plate.transform((SIZE, SIZE), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        frames.append(np.asarray(frame))
    return frames


def mp4(frames: list[np.ndarray]) -> bytes:
    """Encode frames (S, S, 3) uint8 as H.264 in MP4."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        stream.thread_count = 1
        # libx264's macroblock tree reads memory it never wrote: with it, the same frames give other bytes now and then
        # (seen with MALLOC_PERTURB_), so it is off.
        stream.options = {"crf": "26", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return out.getvalue()
