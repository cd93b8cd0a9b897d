"""The speech encoder: every weight in its place, only sound counts, and speech is told apart by what is said."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fusionrec.encoders import musicnn, whisper
from fusionrec.encoders.checkpoints import ctranslate2
from fusionrec.encoders.weights import PackagedWeights
from fusionrec.encoders.whisper import FILE, STEP, WEIGHTS, WINDOW, Whisper, rename, sounding
from fusionrec.errors import IntegrityError
from fusionrec.media.audio import decode


@pytest.fixture(scope="module")
def encoder() -> whisper.WhisperEncoder:
    return Whisper().build()


def noise(seed: int, n: int) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def test_every_weight_of_the_encoder_is_used(encoder: whisper.WhisperEncoder) -> None:
    arrays = ctranslate2(WEIGHTS.verified()[FILE], "encoder/")
    assert int(arrays["encoder/num_heads"]) == encoder.network.config.encoder_attention_heads
    given = sum(a.size for a in arrays.values() if a.ndim)
    keys_without_bias = 4 * 384
    assert given - keys_without_bias == sum(p.numel() for p in encoder.network.state_dict().values())
    first = arrays["encoder/layer_2/self_attention/linear_0/weight"]
    state = {k: v.numpy() for k, v in encoder.network.state_dict().items()}
    for n, letter in enumerate("qkv"):
        part = first[384 * n : 384 * (n + 1)].astype(np.float32)
        np.testing.assert_array_equal(state[f"layers.2.self_attn.{letter}_proj.weight"], part)
    assert set(rename(arrays)) == set(state)
    bias = arrays["encoder/layer_1/self_attention/linear_0/bias"]
    assert not bias[384:768].any()  # the key's, which transformers does not have


def test_positions_that_hold_sound() -> None:
    sound = np.zeros(STEP * 10 + 7, np.float32)
    sound[STEP * 2 : STEP * 5] = 0.5
    sound[STEP * 7 : STEP * 8] = 0.5 * 10 ** (-45 / 20)
    sound[STEP * 8 : STEP * 9] = 0.5 * 10 ** (-55 / 20)
    assert np.flatnonzero(sounding(sound)).tolist() == [2, 3, 4, 7]
    assert sounding(np.zeros(1_000, np.float32)).tolist() == [True] * 4
    assert sounding(np.ones(1, np.float32)).tolist() == [True]


def test_a_short_clip_is_the_mean_of_its_own_states(encoder: whisper.WhisperEncoder) -> None:
    sound = noise(0, 20 * STEP)
    sound[5 * STEP : 9 * STEP] = 0
    states = encoder._states(sound)
    assert states.shape == (1500, 384)
    keep = [n for n in range(20) if not 5 <= n < 9]
    np.testing.assert_allclose(encoder.encode([sound])[0], states[keep].mean(0), atol=1e-5)


def test_windows_count_by_the_sound_they_hold(encoder: whisper.WhisperEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every position of the clip weighs the same, in whichever window it lies; windows without sound are left out."""
    seen: list[int] = []

    def states(window: np.ndarray) -> np.ndarray:
        seen.append(len(window))
        return np.full((1500, 384), len(seen), np.float32)

    monkeypatch.setattr(encoder, "_states", states)
    loud = noise(1, WINDOW)
    assert encoder.encode([np.concatenate([loud, loud[: 100 * STEP]])])[0, 0] == pytest.approx(1700 / 1600)
    assert seen == [WINDOW, 100 * STEP]
    seen.clear()
    encoder.encode([np.concatenate([loud, loud[:7_999]])])  # less than half a second behind a full window is left out
    assert seen == [WINDOW]
    seen.clear()
    encoder.encode([np.concatenate([np.zeros(WINDOW, np.float32), loud[:999]])])  # unless there is nothing else
    assert seen == [999]


def test_silence_gives_a_finite_vector_that_is_not_zero(encoder: whisper.WhisperEncoder) -> None:
    row = encoder.encode([np.zeros(20_000, np.float32)])[0]
    assert np.isfinite(row).all()
    assert np.linalg.norm(row) > 1


def test_bf16_stays_close(encoder: whisper.WhisperEncoder) -> None:
    sound = [noise(3, 16_000)]
    full, half = encoder.encode(sound)[0], Whisper(precision="bf16").build().encode(sound)[0]
    assert float(full @ half) / float(np.linalg.norm(full) * np.linalg.norm(half)) > 0.999


@pytest.mark.parametrize("module", [musicnn, whisper], ids=lambda m: m.WEIGHTS.package)
def test_weights_that_were_tampered_with_are_refused(module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: PackagedWeights = module.WEIGHTS
    real = weights.locate()
    folder = tmp_path / weights.package
    for name, path in real.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
    victim = folder / sorted(real)[-1]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert set(weights.locate().values()).isdisjoint(real.values())
    spec = musicnn.MusiCNN() if module is musicnn else Whisper()
    with pytest.raises(IntegrityError, match="sha256"):
        spec.build()
    assert not (tmp_path / "imported").exists()


def spoken(sentence: str, voice: str) -> np.ndarray:
    program = shutil.which("espeak-ng") or shutil.which("espeak")
    if program is None:
        pytest.skip("espeak-ng, which speaks the sentences of this test, is not installed")
    done = subprocess.run([program, "-v", voice, "--stdout", sentence], capture_output=True, check=True)
    return decode(done.stdout)


def test_what_is_said_matters_more_than_who_says_it(encoder: whisper.WhisperEncoder) -> None:
    """Two sentences by two voices: after removing each voice's mean, a sentence is nearest to itself."""
    sentences = ("the kettle is on the kitchen table", "seven brown horses ran across the field")
    rows = np.stack(
        [encoder.encode([spoken(s, voice) for s in sentences]) for voice in ("en-us+m3", "en-gb+f2")]
    )  # (voices, sentences, 384)
    centred = rows - rows.mean(axis=1, keepdims=True)
    assert float((centred[0, 0] * centred[1, 0]).sum()) > 0  # with two sentences, the difference points the same way
    cosine = float(centred[0, 0] @ centred[1, 0]) / float(np.prod(np.linalg.norm(centred[:, 0], axis=1)))
    assert cosine > 0.3
    assert not np.allclose(rows[0, 0], rows[0, 1])
