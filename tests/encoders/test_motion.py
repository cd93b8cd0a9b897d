"""The motion descriptor: known motions come out as they were put in, and the planted ones of the demo are told
apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fusionrec.demo import clips
from fusionrec.demo.factors import CATEGORIES, FACTORS, stream
from fusionrec.encoders.motion import Motion, affine_motion, describe, thumbnails
from fusionrec.media.video import DENSE, SPREAD, Clip, decode

NAMES = ("right", "down", "expansion", "rotation", "stretch", "shear")
STILL = np.eye(3)


def texture(seed: int, warp: np.ndarray) -> np.ndarray:
    """(160, 160, 3) uint8: a smooth random picture, seen at ``warp`` (3, 3) of the frame [-0.5, 0.5] squared."""
    rng = np.random.default_rng(seed)
    plate = Image.fromarray(rng.integers(0, 255, (14, 14), np.uint8)).resize((480, 480), Image.Resampling.BICUBIC)
    (a, b, tx), (c, d, ty) = warp[0], warp[1]
    affine = (a, b, 160 * (tx - (a + b) / 2) + 240, c, d, 160 * (ty - (c + d) / 2) + 240)
    return np.asarray(
        plate.transform((160, 160), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR).convert("RGB")
    )


def clip_of(frames: np.ndarray) -> Clip:
    """A clip of one window that holds all its frames."""
    spread = np.full((1, SPREAD), -1, np.int16)
    dense = np.full((1, DENSE), -1, np.int16)
    places = np.unique(np.linspace(0, len(frames) - 1, SPREAD).astype(int))
    spread[0, : len(places)] = places
    dense[0, : min(len(frames), DENSE)] = np.arange(min(len(frames), DENSE))
    return Clip(frames, np.arange(len(frames)) / 15, spread, dense, len(frames) / 15, 160, 160)


@pytest.mark.parametrize(
    "name, warp",
    [
        ("right", [[1, 0, 0.05], [0, 1, 0]]),
        ("down", [[1, 0, 0], [0, 1, -0.08]]),
        ("expansion", [[1.06, 0, 0], [0, 1.06, 0]]),
        ("rotation", [[np.cos(0.08), -np.sin(0.08), 0], [np.sin(0.08), np.cos(0.08), 0]]),
        ("stretch", [[1.05, 0, 0], [0, 0.95, 0]]),
        ("shear", [[1, 0.05, 0], [0.05, 1, 0]]),
    ],
)
def test_a_known_motion_is_found_and_no_other(name, warp):
    # b(W x) = a(x): what a shows at x is found in b at W x, so b is seen through the inverse of W.
    full = np.vstack([warp, [0, 0, 1]]).astype(float)
    value = {
        "right": full[0, 2],
        "down": full[1, 2],
        "expansion": 0.06,
        "rotation": 0.08,
        "stretch": 0.05,
        "shear": 0.05,
    }
    pairs = [(texture(s, STILL), texture(s, np.linalg.inv(full))) for s in range(5)]
    a, b = (thumbnails(np.stack(half)) for half in zip(*pairs, strict=True))
    a, b = (a - a.mean()) / a.std(), (b - a.mean()) / a.std()
    flow, left = affine_motion(a, b)
    expected = np.zeros(6)
    expected[NAMES.index(name)] = value[name]
    np.testing.assert_allclose(np.median(flow, axis=0), expected, atol=0.012)
    assert (left < np.abs(a - b).mean(axis=(1, 2)) / 2).all()


@pytest.mark.parametrize("frames", [1, 2, 5, 16])
@pytest.mark.parametrize("picture", ["texture", "black", "white"])
def test_a_still_clip_of_any_length_has_a_finite_vector_that_is_not_zero(frames, picture):
    still = {
        "texture": texture(3, STILL),
        "black": np.zeros((9, 11, 3), np.uint8),
        "white": np.full((2, 2, 3), 255, np.uint8),
    }
    row = describe(clip_of(np.stack([still[picture]] * frames)))
    assert row.shape == (90,) and row.dtype == np.float32 and np.isfinite(row).all() and np.abs(row).max() > 1
    assert np.abs(row[:6]).max() < 1e-3  # nothing moves


def test_faster_is_more_and_the_other_way_is_the_other_sign():
    def panned(step: float) -> np.ndarray:
        frames = [texture(4, np.array([[1, 0, step * k], [0, 1, 0], [0, 0, 1]])) for k in range(16)]
        return describe(clip_of(np.stack(frames)))[45:]

    slow, fast, back = panned(0.004), panned(0.012), panned(-0.012)
    assert fast[6] == pytest.approx(3 * slow[6], rel=0.25)
    assert np.sign(fast[0]) == -np.sign(back[0]) and abs(fast[0]) == pytest.approx(abs(back[0]), rel=0.2)


def test_a_clip_of_several_windows_is_their_mean():
    rng = np.random.default_rng(5)
    one = clip_of(rng.integers(0, 255, (16, 20, 24, 3), np.uint8))
    two = clip_of(rng.integers(0, 255, (16, 20, 24, 3), np.uint8))
    both = Clip(
        np.concatenate([one.frames, two.frames]),
        np.arange(32) / 15,
        np.concatenate([one.spread, two.spread + 16]),
        np.concatenate([one.dense, two.dense + 16]),
        32 / 15,
        24,
        20,
    )
    np.testing.assert_allclose(describe(both), (describe(one) + describe(two)) / 2, rtol=1e-5, atol=1e-6)


def test_the_planted_motions_of_the_demo_are_told_apart():
    """Sixty clips, five motions: each one's nearest other clips, by standardised vectors. Chance is 0.2."""
    kinds, speeds = FACTORS["video"]["motion"], FACTORS["video"]["speed"]
    rows, labels = [], []
    for k in range(60):
        look = {name: values[k % len(values)] for name, values in FACTORS["image"].items()}
        frames = clips.render(stream(0, "probe", k), CATEGORIES[k % 6], look, kinds[k % 5], speeds[k // 5 % 3])
        rows.append(decode(clips.mp4(frames)))
        labels.append(k % 5)
    x, y = Motion().build().encode(rows), np.array(labels)
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    far = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(far, np.inf)
    nearest = y[np.argsort(far, axis=1)[:, :3]]
    voted = np.array([np.bincount(row, minlength=5).argmax() for row in nearest])
    assert (voted == y).mean() > 0.8, (voted == y).mean()
