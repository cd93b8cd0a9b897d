"""The sound encoder: TensorFlow's own numbers, the plain network as oracle, windows, and the demo's factors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fusionrec.demo import sounds
from fusionrec.demo.factors import FACTORS
from fusionrec.encoders import forward, musicnn
from fusionrec.encoders.checkpoints import tensor_bundle
from fusionrec.encoders.mel import mel_filters
from fusionrec.encoders.musicnn import DATA, FRAMES, INDEX, WEIGHTS, MusiCNN, Network, log_mel, windows

# Made by the original network in TensorFlow 1 from one log-mel window: input, layer below the tags, tags (logits).
GOLDEN = np.load(Path(__file__).parent / "musicnn_golden.npz")
EPSILON = 1e-3


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    files = WEIGHTS.verified()
    return tensor_bundle(files[INDEX], files[DATA])


@pytest.fixture(scope="module")
def encoder() -> musicnn.MusiCNNEncoder:
    return MusiCNN().build()


def noise(seed: int, n: int) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@torch.inference_mode()
def plain(arrays: dict[str, np.ndarray], frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The network as the paper draws it, layer by layer in double precision, on (187, 96): (pooled (2, 753) maximum and
    mean, penultimate (200,))."""

    def t(name: str) -> torch.Tensor:
        return torch.from_numpy(arrays[name].astype(np.float64))

    def normalised(x: torch.Tensor, number: int) -> torch.Tensor:
        b = f"batch_normalization_{number}" if number else "batch_normalization"
        mean, variance, gamma, beta = (t(f"{b}/{n}") for n in ("moving_mean", "moving_variance", "gamma", "beta"))
        return F.batch_norm(x, mean, variance, gamma, beta, eps=EPSILON)

    def layer(x: torch.Tensor, number: int) -> torch.Tensor:
        c = f"conv2d_{number}" if number else "conv2d"
        return normalised(torch.relu(F.conv2d(x, t(f"{c}/kernel").permute(3, 2, 0, 1), t(f"{c}/bias"))), number + 1)

    x = normalised(torch.from_numpy(frames.astype(np.float64))[None, None], 0)
    front = [layer(F.pad(x, (0, 0, 3, 3)), n).amax(3) for n in (0, 1)]
    for number, length in ((2, 128), (3, 64), (4, 32)):  # "same" padding of an even filter: one more behind
        front.append(layer(F.pad(x, (0, 0, length // 2 - 1, length // 2)), number).amax(3))
    maps = [torch.cat(front, 1)[0].T]  # (187, 561)
    for number in (5, 6, 7):
        y = layer(F.pad(maps[-1][None, None], (0, 0, 3, 3)), number)[0, :, :, 0].T
        maps.append(y + maps[-1] if number > 5 else y)
    every = torch.cat(maps, 1)
    pooled = torch.stack([every.amax(0), every.mean(0)])
    flat = normalised(pooled.T.reshape(1, -1), 9)
    penultimate = normalised(torch.relu(flat @ t("dense/kernel") + t("dense/bias")), 10)[0]
    return pooled.numpy(), penultimate.numpy()


def close(found: np.ndarray, exact: np.ndarray) -> None:
    """Equal to a millionth of the largest value: a few roundings of float32."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6 * float(np.abs(exact).max()))


def test_tensorflow_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    network = Network(arrays)
    penultimate = network.penultimate(network.pooled(GOLDEN["mel"][0]))
    np.testing.assert_allclose(penultimate, GOLDEN["penultimate"][0], atol=1e-5)
    tags = penultimate @ arrays["dense_1/kernel"] + arrays["dense_1/bias"]
    np.testing.assert_allclose(tags, GOLDEN["logits"][0], atol=5e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_fast_arithmetic_is_the_plain_networks(arrays: dict[str, np.ndarray], seed: int) -> None:
    frames = np.random.default_rng(seed).gamma(0.7, 1.5, (FRAMES, 96)).astype(np.float32)
    network = Network(arrays)
    pooled, penultimate = plain(arrays, frames)
    close(network.pooled(frames), pooled)
    np.testing.assert_allclose(network.penultimate(network.pooled(frames)), penultimate, atol=1e-5)


def test_normalisations_with_a_negative_factor_are_right_too(arrays: dict[str, np.ndarray]) -> None:
    """Some filters must be negated for the maximum to come first; the package's own factors happen to have few."""
    turned = dict(arrays)
    for n in range(1, 6):
        gamma = arrays[f"batch_normalization_{n}/gamma"].copy()
        gamma[::3] *= -1
        turned[f"batch_normalization_{n}/gamma"] = gamma
    frames = np.random.default_rng(7).gamma(0.7, 1.5, (FRAMES, 96)).astype(np.float32)
    close(Network(turned).pooled(frames), plain(turned, frames)[0])


@pytest.mark.parametrize("bins, mels", [(257, 96), (201, 80)])
def test_mel_filters_are_those_of_another_implementation(bins: int, mels: int) -> None:
    from transformers.audio_utils import mel_filter_bank

    other = mel_filter_bank(bins, mels, 0.0, 8_000, 16_000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(mel_filters(bins, mels, 16_000), other, atol=1e-6)


def test_log_mel_of_a_tone_peaks_in_its_band() -> None:
    """A tone of amplitude a through a Hann window has the power (a * 512 / 4)^2 in its bin."""
    filters = mel_filters(257, 96, 16_000)
    tone = (0.5 * np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000)).astype(np.float32)  # bin 32 exactly
    frames = log_mel(tone, filters)
    assert frames.shape == (1 + 16_000 // 256, 96)
    power = np.zeros(257)
    power[31:34] = np.array([0.25, 1, 0.25]) * (0.5 * 512 / 4) ** 2
    np.testing.assert_allclose(frames[20:40], np.log10(10_000 * power @ filters + 1)[None].repeat(20, 0), atol=2e-3)


@pytest.mark.parametrize(
    "length, starts",
    [
        (187, [0]),
        (188, [0]),
        (279, [46]),  # one window alone lies in the middle
        (281, [0, 94]),
        (374, [0, 187]),
        (935, [0, 187, 374, 561, 748]),
        (1000, [0, 203, 406, 610, 813]),
    ],
)
def test_windows_cover_the_sound_evenly(length: int, starts: list[int]) -> None:
    frames = np.arange(length, dtype=np.float32)[:, None].repeat(96, axis=1)
    assert [int(w[0, 0]) for w in windows(frames)] == starts
    assert {tuple(w.shape) for w in windows(frames)} == {(FRAMES, 96)}


def test_a_short_sound_is_repeated() -> None:
    frames = np.arange(80, dtype=np.float32)[:, None].repeat(96, axis=1)
    (window,) = windows(frames)
    assert window[:, 0].tolist() == [*range(80), *range(80), *range(27)]


def test_the_encoder_joins_mean_and_max_and_averages_windows(encoder: musicnn.MusiCNNEncoder, arrays) -> None:
    sound = noise(0, 16_000 * 6)
    frames = windows(log_mel(sound, mel_filters(257, 96, 16_000)))
    assert len(frames) == 2
    pooled = np.mean([plain(arrays, f)[0] for f in frames], axis=0)
    row = encoder.encode([sound])[0]
    assert row.shape == (1506,)
    close(row, np.concatenate([pooled[1], pooled[0]]))


def test_rows_have_the_same_bits_in_every_batch_and_with_any_number_of_threads(
    encoder: musicnn.MusiCNNEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [noise(n, length) for n, length in enumerate((48_000, 500, 61_000, 100_000, 33_000))]
    together = encoder.encode(batch)
    np.testing.assert_array_equal(encoder.encode(batch[::-1])[::-1], together)
    np.testing.assert_array_equal(np.concatenate([encoder.encode([s]) for s in batch]), together)
    for n in ("1", "2", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", n)
        monkeypatch.setattr(forward, "_pool", None)  # the next call makes as many threads
        np.testing.assert_array_equal(encoder.encode(batch), together)


def test_neither_torch_nor_tensorflow_is_needed() -> None:
    code = (
        "import sys, numpy; from fusionrec.encoders.musicnn import MusiCNN\n"
        "row = MusiCNN().build().encode([numpy.ones(500, numpy.float32)])\n"
        "print(row.shape, {'torch', 'tensorflow', 'musicnn', 'transformers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "(1, 1506) set()\n"


def test_silence_gives_a_finite_vector_that_is_not_zero(encoder: musicnn.MusiCNNEncoder) -> None:
    row = encoder.encode([np.zeros(20_000, np.float32)])[0]
    assert np.isfinite(row).all()
    assert np.linalg.norm(row) > 1


def test_the_penultimate_layer_is_made_from_the_pooled_maps(encoder: musicnn.MusiCNNEncoder) -> None:
    sound = noise(0, 48_000)
    mean_max = encoder.encode([sound])[0].reshape(2, 753)
    row = MusiCNN(features="penultimate").build().encode([sound])[0]
    assert row.shape == (200,)
    np.testing.assert_allclose(row, encoder.network.penultimate(mean_max[::-1]), atol=1e-5)


def accuracy(rows: np.ndarray, values: np.ndarray, folds: int = 4) -> float:
    """Cross-validated accuracy of a linear probe: ridge regression onto one column a value, in its dual form."""
    z = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    products, wanted = z @ z.T / z.shape[1], np.eye(values.max() + 1)[values]
    hits = 0
    for fold in range(folds):
        test = np.arange(len(rows)) % folds == fold
        base = wanted[~test].mean(0)
        inner = products[np.ix_(~test, ~test)] + 0.1 * np.eye(int((~test).sum()))
        said = products[np.ix_(test, ~test)] @ np.linalg.solve(inner, wanted[~test] - base) + base
        hits += int((said.argmax(1) == values[test]).sum())
    return hits / len(rows)


def test_the_demos_factors_are_read_far_above_chance(encoder: musicnn.MusiCNNEncoder) -> None:
    """60 rendered clips; chance is 1/5 for timbre, 1/4 for tempo, 1/3 for grit. Three seeds gave .72 to .90."""
    rng, n = np.random.default_rng(0), 60
    planted = {name: rng.permutation(np.arange(n) % len(FACTORS["audio"][name])) for name in FACTORS["audio"]}
    clips = [
        sounds.render(np.random.default_rng([0, i]), **{f: FACTORS["audio"][f][planted[f][i]] for f in planted})
        for i in range(n)
    ]
    rows = encoder.encode(clips)
    for factor, least in (("timbre", 0.6), ("tempo", 0.6), ("grit", 0.7)):
        assert accuracy(rows, planted[factor]) > least, factor
    assert accuracy(rows, rng.permutation(planted["timbre"])) < 0.45  # the probe itself knows nothing
