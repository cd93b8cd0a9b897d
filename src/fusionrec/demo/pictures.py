"""Product pictures drawn from four independent factors: shape (public), colour, pattern, finish.

Everything is computed per pixel in object coordinates (u right, v down, half-height 1), so that a pose, a light
and a background vary freely around the factors. 224 px, about 12 ms a picture.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image
from scipy.interpolate import PchipInterpolator

from fusionrec.types import Float32

SIZE, QUALITY = 224, 88
HSV = {
    "red": (0.985, 0.80, 0.78),
    "orange": (0.075, 0.86, 0.94),
    "yellow": (0.145, 0.78, 0.95),
    "green": (0.37, 0.62, 0.55),
    "blue": (0.59, 0.72, 0.72),
    "purple": (0.77, 0.52, 0.60),
    "ivory": (0.12, 0.12, 0.93),
    "charcoal": (0.60, 0.10, 0.22),
}
# Half-widths of bodies of revolution at heights v; -1 is the top.
PROFILE = {
    "vase": ((-0.98, -0.90, -0.68, -0.45, 0.10, 0.60, 0.90, 0.98), (0.34, 0.30, 0.21, 0.24, 0.55, 0.60, 0.42, 0.38)),
    "mug": ((-0.68, -0.60, 0.50, 0.70), (0.60, 0.60, 0.58, 0.50)),
    "bowl": ((-0.42, -0.34, 0.05, 0.34, 0.46, 0.50, 0.62), (0.96, 0.93, 0.80, 0.50, 0.32, 0.33, 0.38)),
    "lamp": ((-0.98, -0.90, 0.00, 0.10), (0.34, 0.37, 0.70, 0.73)),
    "tote": ((-0.35, -0.25, 0.80, 0.92), (0.62, 0.63, 0.74, 0.76)),
    # In no catalogue, only in a batch with a new category:
    "bottle": ((-0.98, -0.86, -0.84, -0.55, -0.20, 0.05, 0.88, 0.98), (0.13, 0.13, 0.10, 0.11, 0.34, 0.42, 0.42, 0.38)),
}


def _noise(rng: np.random.Generator, size: int, cells: int) -> Float32:
    """Smooth noise (size, size) in about [0, 1]."""
    grid = Image.fromarray(rng.random((cells, cells), np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def _edge(distance: np.ndarray, width: float) -> np.ndarray:
    """Coverage in [0, 1] from a signed distance (positive inside) and the width of a pixel."""
    return np.clip(distance / width + 0.5, 0, 1)


def _revolve(shape: str, u: np.ndarray, v: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and horizontal normal in [-1, 1] of a body of revolution."""
    heights, widths = PROFILE[shape]
    fine = np.linspace(heights[0], heights[-1], 200)
    half = np.interp(v.ravel(), fine, PchipInterpolator(heights, widths)(fine)).reshape(v.shape).astype(np.float32)
    inside = np.minimum(half - np.abs(u), np.minimum(v - heights[0], heights[-1] - v))
    return _edge(inside, pixel), np.clip(u / half, -1, 1)


def _body(shape: str, u: np.ndarray, v: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(coverage of the patterned body, coverage of handles and feet, horizontal normal)."""
    none = np.zeros_like(u)
    if shape == "cushion":
        radius = (np.abs(u) ** 3.2 + np.abs(v) ** 3.2) ** (1 / 3.2)
        return _edge(0.86 - radius, pixel), none, np.clip(u * 0.8, -1, 1)
    body, normal = _revolve(shape, u, v, pixel)
    trim = none
    if shape == "lamp":
        stand = np.minimum(0.05 - np.abs(u), np.minimum(v, 0.94 - v))
        foot = 1 - np.hypot(u / 0.42, (v - 0.93) / 0.09)
        trim = np.maximum(_edge(stand, pixel), _edge(foot * 0.09, pixel))
    elif shape == "mug":
        ring = np.hypot((u - 0.60) / 0.78, v / 0.92)
        trim = _edge(0.075 - np.abs(ring - 0.43), pixel) * (u > 0.45)
    elif shape == "tote":
        strap = np.hypot(u / 0.38, (v + 0.33) / 0.60)
        trim = _edge((0.09 - np.abs(strap - 0.91)) * 0.45, pixel) * (v < -0.30)
        normal = normal * 0.45
    return body, np.where(body > 0.5, 0, trim), normal


def _pattern(rng: np.random.Generator, kind: str, u: np.ndarray, v: np.ndarray, pixel: float) -> np.ndarray:
    """Coverage (S, S) of the accent colour."""
    period = rng.uniform(0.26, 0.36)
    turn = rng.uniform(-0.25, 0.25) + (np.pi / 2 if kind == "stripes" and rng.random() < 0.5 else 0)
    c, s = float(np.cos(turn)), float(np.sin(turn))
    x, y = (c * u - s * v) / period + rng.random(), (s * u + c * v) / period + rng.random()
    soft = pixel / period
    if kind == "plain":
        return np.zeros_like(u)
    if kind == "stripes":
        return _edge(0.22 - np.abs(x % 1 - 0.5), soft)
    if kind == "checks":
        a, b = _edge(0.25 - np.abs(x % 1 - 0.5), soft), _edge(0.25 - np.abs(y % 1 - 0.5), soft)
        return a + b - 2 * a * b
    if kind == "dots":
        x = x + 0.5 * (np.floor(y) % 2)
        return _edge(0.29 - np.hypot(x % 1 - 0.5, y % 1 - 0.5), soft)
    x, y = x / 1.6, y / 1.6
    x = x + 0.5 * (np.floor(y) % 2)
    turn_cell = np.floor(x) * 7.3 + np.floor(y) * 3.1
    fx, fy = x % 1 - 0.5, y % 1 - 0.5
    r, angle = np.hypot(fx, fy), np.arctan2(fy, fx) + turn_cell
    petals = _edge(0.25 * (1 + 0.45 * np.cos(5 * angle)) - r, soft) * _edge(r - 0.07, soft)
    leaf = _edge(0.045 - np.abs(fx - fy), soft) * (r > 0.36) * (r < 0.55)
    return np.maximum(petals, leaf)


def _accent(colour: str, main: Float32) -> Float32:
    """A tint or shade of the main colour: an accent of another hue would hide the colour factor."""
    if colour == "charcoal":
        return main + 0.5
    return main * 0.5 if main.mean() > 0.62 else main + (1 - main) * 0.72


def _finish(
    rng: np.random.Generator,
    kind: str,
    albedo: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    normal: np.ndarray,
    light: float,
) -> np.ndarray:
    """Shaded colour (S, S, 3) of the body under one light from the left (< 0) or the right."""
    size = len(u)
    facing = np.sqrt(np.maximum(0, 1 - normal**2))
    diffuse = np.clip(normal * light + 0.85 * facing, 0, 1.2)
    shade, shine = 0.55 + 0.45 * diffuse, np.zeros_like(u)
    if kind == "glossy":
        side = 1.0 if light > 0 else -1.0
        window = np.clip(1 - np.abs(normal - 0.45 * side) / 0.16, 0, 1) ** 1.5 * (np.sin(2.1 * v + 1.2) > -0.55)
        rim = np.clip(1 - np.abs(normal + 0.55 * side) / 0.07, 0, 1)
        shade = 0.40 + 0.62 * diffuse
        shine = 0.75 * window + 0.28 * rim + 0.12 * (1 - facing)
    elif kind == "wood":
        warp = _noise(rng, size, 7)
        grain = np.sin(6 * v + 34 * (u + 0.35 * warp) + 5 * warp)
        shade = shade * (1 - 0.22 * _edge(grain - 0.25, 0.4) - 0.12 * np.abs(grain) - 0.12 * _noise(rng, size, 90))
        albedo = 0.82 * albedo + 0.18 * np.array([0.45, 0.27, 0.12], np.float32)
    elif kind == "woven":
        wave = 2 * np.pi / 0.08
        a, b = np.sin(u * wave), np.sin(v * wave)
        strand = np.where(np.sin(u * wave / 2) * np.sin(v * wave / 2) > 0, a, b)
        shade = shade * (0.86 - 0.24 * strand) * (1 - 0.10 * _noise(rng, size, 60))
    else:
        shade = shade * (1 - 0.05 * _noise(rng, size, 120))
    return albedo * shade[..., None] + shine[..., None]


def render(
    rng: np.random.Generator, shape: str, look: Mapping[str, str], size: int = SIZE, for_clip: bool = False
) -> np.ndarray:
    """Draw one picture, (size, size, 3) uint8. ``look``: colour, pattern, finish; ``for_clip``: upright, in the
    middle, no camera noise."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    turn, dx, dy = float(np.deg2rad(rng.uniform(-8, 8))), rng.uniform(-0.08, 0.08), rng.uniform(-0.06, 0.06)
    if for_clip:
        turn = dx = dy = 0.0
    scale, stretch, flip = 0.88 * rng.uniform(0.72, 0.95), rng.uniform(0.90, 1.10), float(rng.choice([-1, 1]))
    light = rng.uniform(0.25, 0.7) * float(rng.choice([-1, 1]))
    c, s = float(np.cos(turn)), float(np.sin(turn))  # Python floats leave float32 arrays as they are
    u = flip * (c * (x - dx) + s * (y - dy)) / (scale * stretch)
    v = (-s * (x - dx) + c * (y - dy)) / scale
    pixel = 2 / size / scale
    body, trim, normal = _body(shape, u, v, pixel)

    h, sat, val = HSV[look["colour"]]
    jitter = rng.uniform(-1, 1, 3) * (0.015, 0.07, 0.06)
    main = np.array(
        colorsys.hsv_to_rgb((h + jitter[0]) % 1, *np.clip((sat + jitter[1], val + jitter[2]), 0, 1)), np.float32
    )
    accent = _pattern(rng, look["pattern"], u, v, pixel)[..., None]
    albedo = main * (1 - accent) + _accent(look["colour"], main) * accent
    albedo = np.where(trim[..., None] > 0, main * 0.8, albedo)
    thing = _finish(rng, look["finish"], albedo, u, v, normal, light * flip)

    tint = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.12), rng.uniform(0.82, 0.97))
    ground = np.array(tint, np.float32) * (1 - 0.10 * rng.random() * (y[..., None] * 0.5 + 0.5))
    bottom = dy + scale * {"mug": 0.68, "bowl": 0.60, "cushion": 0.82, "tote": 0.90}.get(shape, 0.96)
    shadow = np.exp(-(((x - dx - 0.04) / (0.60 * scale)) ** 2 + ((y - bottom) / 0.09) ** 2))
    ground = ground * (1 - 0.28 * shadow)[..., None]

    cover = np.maximum(body, trim)[..., None]
    picture = 255 * (thing * cover + ground * (1 - cover))
    if not for_clip:
        picture += np.float32(rng.uniform(1, 4)) * rng.standard_normal((size, size, 1), np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray) -> bytes:
    """Encode (S, S, 3) uint8."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
