"""Pictures and sounds show their factors (measured with simple signal statistics, not with an encoder)."""

import os
import subprocess
import sys

import numpy as np
import pytest

from fusionrec.demo import pictures, sounds
from fusionrec.demo.factors import CATEGORIES, FACTORS


def looks(colour: str = "blue", pattern: str = "plain", finish: str = "matte") -> dict[str, str]:
    return {"colour": colour, "pattern": pattern, "finish": finish}


@pytest.mark.parametrize("shape", CATEGORIES)
def test_every_shape_fills_a_fair_part_of_the_frame_and_stays_inside(shape: str) -> None:
    for seed in range(4):
        picture = pictures.render(np.random.default_rng(seed), shape, looks("red")).astype(float)
        red = (picture[..., 0] - picture[..., 2]) > 60
        assert 0.08 < red.mean() < 0.7
        assert not red[:3].any() and not red[-3:].any() and not red[:, :3].any() and not red[:, -3:].any()


def test_colours_differ_in_the_middle_of_the_picture() -> None:
    middles = {}
    for colour in FACTORS["image"]["colour"]:
        drawn = [pictures.render(np.random.default_rng(s), "cushion", looks(colour)) for s in range(3)]
        crops = [picture[92:132, 92:132].mean((0, 1)) for picture in drawn]
        middles[colour] = np.mean(crops, axis=0)
        assert np.std(crops, axis=0).max() < 40
    names = list(middles)
    apart = [np.abs(middles[a] - middles[b]).max() for i, a in enumerate(names) for b in names[:i]]
    assert min(apart) > 25


def test_a_pattern_adds_structure_to_the_body() -> None:
    def contrast(pattern: str) -> float:
        drawn = [pictures.render(np.random.default_rng(s), "cushion", looks(pattern=pattern)) for s in range(3)]
        return float(np.mean([picture[72:152, 72:152].std(axis=(0, 1)).mean() for picture in drawn]))

    plain = contrast("plain")
    assert all(contrast(p) > 2 * plain for p in FACTORS["image"]["pattern"] if p != "plain")


def test_rendering_is_a_function_of_the_random_stream() -> None:
    a, b, c = (pictures.jpeg(pictures.render(np.random.default_rng(s), "lamp", looks())) for s in (1, 1, 2))
    assert a == b != c


def onsets(sound: np.ndarray) -> int:
    """Number of clear rises of a 20 ms energy envelope."""
    frame = sound[: len(sound) // 320 * 320].reshape(-1, 320)
    level = np.log((frame**2).mean(axis=1) + 1e-5)
    rise = level[2:] - level[:-2]
    return int(((rise[1:] > 1.0) & (rise[:-1] <= 1.0)).sum())


def test_tempo_is_audible() -> None:
    def mean_onsets(tempo: str) -> float:
        played = [sounds.render(np.random.default_rng(s), "pluck", tempo, "clean") for s in range(6)]
        return float(np.mean([onsets(sound) for sound in played]))

    drone, slow, medium, fast = (mean_onsets(t) for t in FACTORS["audio"]["tempo"])
    assert drone < slow < medium < fast


def test_grit_is_audible() -> None:
    def high(grit: str) -> float:
        """Share of energy above 4 kHz of a flute, which has little of its own."""
        out = []
        for s in range(4):
            y = sounds.render(np.random.default_rng(s), "flute", "medium", grit)
            power = np.abs(np.fft.rfft(y)) ** 2
            out.append(power[len(power) // 2 :].sum() / power.sum())
        return float(np.median(out))

    assert high("hiss") > 5 * high("clean")
    crest = {}
    for grit in ("clean", "drive"):
        y = sounds.render(np.random.default_rng(1), "flute", "drone", grit)
        crest[grit] = np.abs(y).max() / np.sqrt((y**2).mean())
    assert crest["drive"] < crest["clean"]


@pytest.mark.parametrize("timbre", FACTORS["audio"]["timbre"])
def test_every_timbre_is_finite_and_levelled(timbre: str) -> None:
    for tempo in FACTORS["audio"]["tempo"]:
        y = sounds.render(np.random.default_rng(11), timbre, tempo, "clean")
        assert np.isfinite(y).all() and 0.45 < np.abs(y).max() < 0.96 and y.dtype == np.float32


def test_a_clip_does_not_depend_on_what_memory_held_before() -> None:
    """libx264's macroblock tree did: a regression test that fills fresh memory with different bytes."""
    code = (
        "import hashlib, numpy as np; from fusionrec.demo import clips;"
        "look = {'colour': 'blue', 'pattern': 'dots', 'finish': 'matte'};"
        "f = clips.render(np.random.default_rng(3), 'mug', look, 'spin', 'fast');"
        "print(*{hashlib.sha256(clips.mp4(f)).hexdigest() for _ in range(3)})"
    )
    seen = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "MALLOC_PERTURB_": fill},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for fill in ("0", "170")
    ]
    assert seen[0] == seen[1] and len(seen[0]) == 1
