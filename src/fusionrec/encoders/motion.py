"""How a clip moves: statistics of the affine motion between frames, 90 numbers, no learned weights.

Between two neighbouring frames one affine motion of the whole picture is estimated by Gauss-Newton on brightness,
coarse to fine (Lucas and Kanade 1981, "An iterative image registration technique with an application to stereo
vision"; Bergen et al. 1992, "Hierarchical model-based motion estimation"; the inverse compositional form, which needs
the gradients of one frame only, is of Baker and Matthews 2004, "Lucas-Kanade 20 years on"). Its six numbers are turned
into shift right, shift down, expansion, rotation and two shears. Their statistics over eight frames spread over a
window and over sixteen consecutive ones describe slow and fast motion; a clip of several windows is their mean.

Legend: T frames, P = T - 1 pairs, n x n pixels, N = n * n.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.forward import each
from fusionrec.encoders.weights import fingerprint
from fusionrec.media.video import RECIPE, Clip
from fusionrec.types import Float32

SIDE = 28
LEVELS = ((2, 3), (1, 3))
"""(how much smaller than SIDE, Gauss-Newton steps), coarse to fine."""
RIDGE = 1e-3  # keeps a flat picture, which shows no motion, at zero
FARTHEST = 0.6  # shares of the frame (or of a radian): beyond it an estimate is noise
STATISTICS = 45


class Motion(EncoderSpec):
    """Reads clips; needs no weights."""

    accepts: ClassVar[Accepts] = "video"
    kind: Literal["motion"] = "motion"

    def fingerprint(self) -> str:
        return fingerprint(
            self.kind, side=SIDE, levels=LEVELS, ridge=RIDGE, farthest=FARTHEST, decode=RECIPE, version=1
        )

    def build(self) -> Encoder:
        return MotionEncoder()


class MotionEncoder(Encoder):
    """Each clip is computed by itself, so a row's bits do not depend on its batch."""

    dim = 2 * STATISTICS
    chunk = 16
    at_once = 1  # OpenBLAS is told its number of threads by the main thread alone

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n clips -> (n, 90) float32: the statistics of the spread frames, then those of the consecutive ones."""
        return np.stack(each(describe, batch))


def describe(clip: Clip) -> Float32:
    """(90,) float32 of one clip."""
    frames = thumbnails(clip.frames)
    rows = [row[row >= 0] for pair in zip(clip.spread, clip.dense, strict=True) for row in pair]
    # One frame alone is a pair that does not move.
    sets = [standardised(frames[row if len(row) > 1 else np.repeat(row, 2)]) for row in rows]
    first, second = np.concatenate([x[:-1] for x in sets]), np.concatenate([x[1:] for x in sets])
    flow, left = affine_motion(first, second)
    change = np.abs(first - second).mean(axis=(1, 2))
    cuts = np.cumsum([len(x) - 1 for x in sets])[:-1]
    parts = zip(*(np.split(x, cuts) for x in (flow, left, change)), strict=True)
    table = np.stack([statistics(*part) for part in parts])
    return table.reshape(len(clip.spread), 2 * STATISTICS).mean(axis=0, dtype=np.float32)


def thumbnails(frames: np.ndarray) -> Float32:
    """(T, h, w, 3) uint8 -> (T, SIDE, SIDE) float32, brightness in [0, 1]."""
    count, height, width = frames.shape[:3]
    # All frames on top of each other are one picture: a single call shrinks them, and no box crosses a frame's edge.
    column = Image.fromarray(frames.reshape(count * height, width, 3)).convert("L")
    small = column.resize((SIDE, count * SIDE), Image.Resampling.BOX)
    return np.asarray(small).reshape(count, SIDE, SIDE).astype(np.float32) / np.float32(255)


def standardised(frames: Float32) -> Float32:
    """Brightness of a set of frames with mean 0 and about variance 1, so that contrast is not taken for motion."""
    return (frames - frames.mean()) / (frames.std() + np.float32(1e-3))


def statistics(flow: Float32, left: Float32, change: Float32) -> Float32:
    """(45,) float32 of the P pairs of one set: ``flow`` (P, 6), ``left`` and ``change`` (P,), the mean absolute
    difference of two frames with and without the motion taken out."""
    size = np.abs(flow)
    log = np.log(size.mean(axis=0) + np.float32(3e-4))
    share = log - np.log(size.mean(axis=0).sum() + np.float32(1e-3))
    turns = np.sign(flow[1:]) != np.sign(flow[:-1])
    turning = turns.mean(axis=0) if len(turns) else np.zeros(6)
    energy = np.log(change.mean() + 1e-3), change.std(), np.log(left.mean() + 1e-3)
    parts = (flow.mean(axis=0), size.mean(axis=0), flow.std(axis=0), size.max(axis=0), log, share, turning, energy)
    return np.concatenate(parts).astype(np.float32)


def affine_motion(first: Float32, second: Float32) -> tuple[Float32, Float32]:
    """Motion between P pairs of frames, two arrays (P, SIDE, SIDE) float32.

    Returns (P, 6) float32: shift right and down in shares of the frame, expansion, rotation (clockwise, radians for
    small angles), stretch along the axes, shear; and (P,) the mean absolute difference that the motion does not
    explain.
    """
    warp = np.tile(np.eye(3, dtype=np.float32), (len(first), 1, 1))
    left = np.zeros(len(first), np.float32)
    for factor, steps in LEVELS:
        a, b = shrunk(first, factor), shrunk(second, factor)
        side = a.shape[1]
        x, y, grid = _grid(side)
        gy, gx = (g.reshape(len(a), -1) * np.float32(side) for g in np.gradient(a, axis=(1, 2)))
        steepest = np.stack([gx, gy, gx * x, gx * y, gy * x, gy * y], axis=1)  # (P, 6, N)
        normal = steepest @ steepest.transpose(0, 2, 1) + np.float32(RIDGE * side * side) * np.eye(6, dtype=np.float32)
        inverse = np.linalg.inv(normal)
        flat = a.reshape(len(a), -1)
        for _ in range(steps):
            error = _error(flat, b, warp, grid)
            warp = _bounded(warp @ _undone((inverse @ (steepest @ error[..., None]))[..., 0]))
        left = np.abs(_error(flat, b, warp, grid)).mean(axis=1)
    expansion, rotation = (warp[:, 0, 0] + warp[:, 1, 1]) / 2 - 1, (warp[:, 1, 0] - warp[:, 0, 1]) / 2
    stretch, shear = (warp[:, 0, 0] - warp[:, 1, 1]) / 2, (warp[:, 1, 0] + warp[:, 0, 1]) / 2
    return np.stack([warp[:, 0, 2], warp[:, 1, 2], expansion, rotation, stretch, shear], axis=1), left


def shrunk(frames: Float32, factor: int) -> Float32:
    """(P, n, n) -> (P, n / factor, n / factor), means of squares."""
    count, side = frames.shape[:2]
    if factor == 1:
        return frames
    return frames.reshape(count, side // factor, factor, side // factor, factor).mean(axis=(2, 4))


@cache
def _grid(side: int) -> tuple[Float32, Float32, Float32]:
    """x (N,), y (N,) and (x, y, 1) (3, N) of the pixel centres, the frame being [-0.5, 0.5] squared."""
    axis = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    y, x = (c.ravel() for c in np.meshgrid(axis, axis, indexing="ij"))
    return x, y, np.stack([x, y, np.ones_like(x)])


def _error(flat: Float32, frames: Float32, warp: Float32, grid: Float32) -> Float32:
    """(P, N): ``frames`` (P, n, n) seen at the warped grid (bilinear) minus ``flat`` (P, N); 0 outside of the frame,
    where nothing is known."""
    count, side = frames.shape[:2]
    at = (warp[:, :2] @ grid + np.float32(0.5)) * np.float32(side) - np.float32(0.5)
    corner = np.clip(np.floor(at), 0, side - 2)
    part = at - corner
    fx, fy = part[:, 0], part[:, 1]
    inside = np.abs(part - np.float32(0.5)).max(axis=1) <= 0.5 + 1e-4
    low = corner.astype(np.int32)
    place = low[:, 1] * side + low[:, 0] + np.arange(count, dtype=np.int32)[:, None] * (side * side)
    pixels = frames.ravel()
    a, b, c, d = (pixels.take(place + step) for step in (0, 1, side, side + 1))
    top = a + (b - a) * fx
    bottom = c + (d - c) * fx
    return (top + (bottom - top) * fy - flat) * inside


def _undone(step: Float32) -> Float32:
    """(P, 3, 3): the inverse of the warps with parameters ``step`` (P, 6)."""
    step = np.clip(step, -0.3, 0.3)
    m = np.tile(np.eye(3, dtype=np.float32), (len(step), 1, 1))
    m[:, :2, 2] += step[:, :2]
    m[:, :2, :2] += step[:, 2:].reshape(-1, 2, 2)
    return np.linalg.inv(m)


def _bounded(warp: Float32) -> Float32:
    eye = np.eye(3, dtype=np.float32)
    return eye + np.clip(warp - eye, -FARTHEST, FARTHEST)
