"""What every encoder promises (encoders/base.py)."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from PIL import Image as Pictures

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.base import Attributes, Encoder, EncoderSpec
from fusionrec.encoders.learnt import LearntEncoderSpec
from fusionrec.errors import ConfigError
from fusionrec.kinds import members
from fusionrec.media.video import Clip
from fusionrec.registry.model import arrays_to_bytes
from fusionrec.registry.sealed import seal
from tests.encoders import small

SPECS: dict[str, type[EncoderSpec]] = {cls.model_fields["kind"].default: cls for cls in members(AnyEncoder)}
EXAMPLES: dict[str, dict[str, Any]] = {"tuned": {"of": {"kind": "minilm"}, "dim": 11}}  # of kinds with required keys

_PLACE = tempfile.TemporaryDirectory()  # removed with the module

pytestmark = pytest.mark.parametrize("kind", sorted(SPECS))


def _picture(seed: int, size: tuple[int, int]) -> Pictures.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    return Pictures.fromarray(noise).resize(size)


def _clip(seed: int, frames: int, size: tuple[int, int]) -> Clip:
    """A picture that drifts to the left; 45 frames make two windows."""
    width, height = size
    wide = np.asarray(_picture(seed, (width + 2 * frames, height)))
    moving = np.stack([wide[:, 2 * k : 2 * k + width] for k in range(frames)])
    spread, dense = (np.full((1 + frames // 40, n), -1, np.int16) for n in (8, 16))
    for w in range(len(spread)):
        rows = np.arange(w * 15, min(frames, w * 15 + 30))
        for table in (spread, dense):
            places = np.unique(np.linspace(0, len(rows) - 1, table.shape[1] // 4).astype(int))
            table[w, : len(places)] = rows[places]
    return Clip(moving, np.arange(frames) / 15, spread, dense, frames / 15, width, height)


def inputs(accepts: str) -> list[Any]:
    """Seven different inputs of one kind, some of them awkward but legal."""
    if accepts == "text":
        return ["a red cup", "红色的杯子", "x" * 3000, "emoji 👩‍👩‍👧 and العربية", "a", "a red cup with a handle", "杯"]
    if accepts == "image":
        sizes = [(224, 224), (31, 200), (200, 31), (8, 8), (640, 480), (225, 223), (64, 64)]
        return [_picture(n, size) for n, size in enumerate(sizes)]
    if accepts == "audio":
        rng = np.random.default_rng(0)
        lengths = [48_000, 30_000, 9, 50_000, 130_001, 48_000, 16_000]  # 3 s is a window of musicnn
        sounds = [(0.2 * rng.standard_normal(n)).astype(np.float32) for n in lengths]
        sounds[1][:] = 0  # silence
        sounds[5] = (0.9 * np.sin(np.arange(48_000) / 7)).astype(np.float32)
        return sounds
    if accepts == "video":
        lengths = [30, 1, 5, 45, 16, 7, 2]
        return [_clip(n, frames, (20 + 10 * n, 90 - 10 * n)) for n, frames in enumerate(lengths)]
    if accepts == "vector":
        return list(np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32))
    if accepts == "attributes":
        words = [("lamp",), (), ("lamp", "杯"), (), ("x" * 3000,), ("\ud800",), tuple(str(n) for n in range(256))]
        prices = [4.5, 1e300, None, 0.0, -2.0, None, 5e-324]
        return [Attributes((w, ()), (p,)) for w, p in zip(words, prices, strict=True)]
    pytest.fail(f"say here what inputs of kind {accepts!r} look like")


@cache
def written(kind: str) -> EncoderSpec:
    """The section as params.yaml holds it; where the kind needs weights, a small model that is written for this run."""
    folder = Path(tempfile.mkdtemp(dir=_PLACE.name))
    section = small.MAKERS[kind](folder) if kind in small.MAKERS else {"kind": kind, **EXAMPLES.get(kind, {})}
    return SPECS[kind].model_validate(section)


@cache
def spec_of(kind: str) -> EncoderSpec:
    """As the stages use it: one that learns gets weights, here those it starts from."""
    spec = written(kind)
    if not isinstance(spec, LearntEncoderSpec):
        return spec
    state = {name: value.numpy() for name, value in spec.start().module.state_dict().items()}
    folder = Path(_PLACE.name) / kind
    seal(folder, {"weights.safetensors": arrays_to_bytes(state)}, {"encoder": spec.model_dump(mode="json")})
    return spec.bound(folder)


@cache
def built(kind: str) -> Encoder:
    return spec_of(kind).build()


@cache
def encoded(kind: str) -> Any:
    return built(kind).encode(inputs(spec_of(kind).accepts))


def test_rows_are_finite_float32_of_the_declared_width(kind: str) -> None:
    encoder, out = built(kind), encoded(kind)
    assert out.shape == (7, encoder.dim)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert len(np.unique(out[[0, 2, 4, 5]], axis=0)) == 4  # different inputs, different rows (1 and 6 are Chinese:
    # an English encoder may know neither)


def test_a_row_depends_on_its_input_alone(kind: str) -> None:
    batch = inputs(spec_of(kind).accepts)
    whole = encoded(kind)
    order = [4, 0, 6, 2, 5, 1, 3]
    turned = built(kind).encode([batch[o] for o in order])
    np.testing.assert_allclose(turned, whole[order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(built(kind).encode(batch[3:4]), whole[3:4], rtol=1e-4, atol=1e-5)


def test_the_same_input_gives_the_same_bits(kind: str) -> None:
    batch = inputs(spec_of(kind).accepts)
    again = spec_of(kind).build()
    np.testing.assert_array_equal(encoded(kind), again.encode(batch))


def test_the_fingerprint_is_stable_and_names_the_settings(kind: str) -> None:
    spec = spec_of(kind)
    assert re.fullmatch(r"[0-9a-f]{64}", spec.fingerprint())
    assert spec.fingerprint() == spec_of(kind).fingerprint()
    others = []
    for name, field in type(spec).model_fields.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        others += [spec.model_copy(update={name: c}).fingerprint() for c in choices if c != getattr(spec, name)]
    assert spec.fingerprint() not in others
    assert len(set(others)) == len(others)


def test_fingerprints_differ_between_kinds(kind: str) -> None:
    assert [k for k in SPECS if spec_of(k).fingerprint() == spec_of(kind).fingerprint()] == [kind]


def test_one_that_learns_is_of_no_use_before_it_has_learnt(kind: str, tmp_path: Path) -> None:
    spec = written(kind)
    if spec.learnt:
        for use in (spec.fingerprint, spec.build):
            with pytest.raises(ConfigError, match="run the stage learn"):
                use()
        assert spec.accepts == spec_of(kind).accepts
    else:
        assert spec.bound(tmp_path / "nothing") is spec
