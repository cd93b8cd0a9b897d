"""Music and sounds: MTT_musicnn, trained on the tags of MagnaTagATune.

Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", arXiv 1909.06654. Weights:
package musicnn (ISC), a TensorFlow 1 checkpoint that is read without TensorFlow. It says little about speech.

Runs on numpy alone. Shapes: T frames (187 in a window), S places of a filter, K frequencies of a transform.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.checkpoints import tensor_bundle
from fusionrec.encoders.forward import each
from fusionrec.encoders.mel import mel_filters
from fusionrec.encoders.weights import PackagedWeights, fingerprint
from fusionrec.media.audio import RATE, RECIPE
from fusionrec.types import Float32

INDEX, DATA = "MTT_musicnn/.index", "MTT_musicnn/.data-00000-of-00001"
WEIGHTS = PackagedWeights(
    "musicnn",
    "musicnn==0.1.0",
    {
        INDEX: "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
        DATA: "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
    },
)
FRAMES = 187  # of a window: 3 s
MELS = 96
FFT, HOP = 512, 256
EPSILON = 1e-3  # of every batch normalisation


class MusiCNN(EncoderSpec):
    """``features``: ``mean+max`` (1506-d), the maps of all layers pooled over time, or ``penultimate`` (200-d), the
    layer below the tags, made from those. Windows of 3 s cover the sound evenly and are averaged; a shorter sound is
    repeated to 3 s."""

    accepts: ClassVar[Accepts] = "audio"
    kind: Literal["musicnn"] = "musicnn"
    features: Literal["penultimate", "mean+max"] = "mean+max"

    def fingerprint(self) -> str:
        WEIGHTS.locate()
        return fingerprint(
            self.kind,
            weights=WEIGHTS.digest(),
            features=self.features,
            window=FRAMES,
            decode=RECIPE,
            version=1,
        )

    def build(self) -> Encoder:
        return MusiCNNEncoder(self)


def log_mel(sound: Float32, filters: Float32) -> Float32:
    """(N,) samples at 16 kHz -> (1 + N // 256, 96) float32: log10(10000 power + 1), as the model was trained on."""
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
    spectrum = np.fft.rfft(sliding_window_view(np.pad(sound, FFT // 2), FFT)[::HOP] * hann, axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    out: Float32 = np.log10(np.float32(10_000) * (power @ filters) + np.float32(1))
    return out


def windows(frames: Float32) -> list[Float32]:
    """(T, 96) -> windows of (187, 96): as many as fit when rounded, spread evenly from the first frame to the last; one
    alone lies in the middle. Fewer frames than a window are repeated."""
    if len(frames) < FRAMES:
        return [np.tile(frames, (-(-FRAMES // len(frames)), 1))[:FRAMES]]
    count, room = int(len(frames) / FRAMES + 0.5), len(frames) - FRAMES
    starts = [room // 2] if count < 2 else [round(i * room / (count - 1)) for i in range(count)]
    return [frames[start : start + FRAMES] for start in starts]


def normalisation(arrays: Mapping[str, np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift) of a batch normalisation."""
    name = f"batch_normalization_{number}" if number else "batch_normalization"
    scale = arrays[f"{name}/gamma"] / np.sqrt(arrays[f"{name}/moving_variance"] + np.float32(EPSILON))
    return scale, arrays[f"{name}/beta"] - scale * arrays[f"{name}/moving_mean"]


class Layer:
    """A convolution's ``kernel`` (height, width, filters) and, called, what follows it: bias, ReLU, normalisation.

    ReLU and normalisation are monotonic. So where a maximum over frequency comes after them, it is taken of the bare
    convolution, and they act on what is left, a 60th of the values. Where the normalisation's factor is negative, the
    filter is negated (``sign``), which turns the maximum into the minimum.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], number: int, maximum: bool = False) -> None:
        name = f"conv2d_{number}" if number else "conv2d"
        self.bias = arrays[f"{name}/bias"]
        self.scale, self.shift = normalisation(arrays, number + 1)
        one = np.ones_like(self.scale)
        self.sign = np.where(self.scale < 0, -one, one) if maximum else one
        self.kernel = arrays[f"{name}/kernel"][:, :, 0] * self.sign

    def __call__(self, x: np.ndarray) -> np.ndarray:
        out: np.ndarray = np.maximum(x * self.sign + self.bias, 0) * self.scale + self.shift
        return out


class Wide(Layer):
    """Filters of 7 frames and many bands (timbre), maximum over the S places where they lie in frequency.

    Along frequency the convolution is a product of Fourier transforms, a tenth of the multiplications; along time it is
    summed directly. The transform back is taken at places that lie symmetrically around 0: there its cosine part C is
    even and its sine part D odd, so half of the places do, and the larger of C + D and C - D is C + |D|.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], number: int) -> None:
        super().__init__(arrays, number, maximum=True)
        _, width, _ = self.kernel.shape
        k = np.arange(MELS // 2 + 1)
        middle = (MELS - width) / 2  # of the places 0 to MELS - width
        twice = np.where((k == 0) | (k == MELS // 2), 1, 2) / MELS  # a real transform holds half of the frequencies
        turn = twice * np.exp(2j * np.pi * k * middle / MELS)
        f = np.conj(np.fft.rfft(self.kernel.astype(np.float64), MELS, axis=1)) * turn[:, None]
        f = f.transpose(1, 0, 2)  # (K, height, filters)
        real, imaginary = np.concatenate([f.real, -f.imag], 1), np.concatenate([f.imag, f.real], 1)
        self.product = np.stack([real, imaginary]).astype(np.float32)  # (2, K, 2 * height, filters)
        places = np.arange(middle % 1, middle + 1)
        angle = 2 * np.pi * np.outer(places, k) / MELS
        self.cosine, self.sine = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def of(self, spectra: np.ndarray) -> np.ndarray:
        """(K, 187, 14), see :func:`spectra` -> (187, filters)."""
        z = np.matmul(spectra, self.product).reshape(2, len(spectra), -1)  # (2, K, T * filters)
        even, odd = self.cosine @ z[0], self.sine @ z[1]
        even += np.abs(odd, out=odd)
        return self(even.max(axis=0).reshape(FRAMES, -1))


def spectra(x: np.ndarray, height: int = 7) -> np.ndarray:
    """(187, 96) -> (K, 187, 14): for each frequency of a transform along the bands and each frame, the real parts of
    the ``height`` frames around it (zeros outside), then the imaginary parts."""
    f = np.fft.rfft(np.pad(x, ((height // 2, height // 2), (0, 0))), axis=1)
    parts = np.stack([f.real, f.imag]).transpose(2, 0, 1)  # (K, 2, T + 6)
    out: np.ndarray = sliding_window_view(parts, height, axis=2).transpose(0, 2, 1, 3)
    return out.reshape(out.shape[0], FRAMES, 2 * height)


class Tall(Layer):
    """Filters of many frames and one band (rhythm), maximum over the 96 bands."""

    def __init__(self, arrays: Mapping[str, np.ndarray], number: int) -> None:
        super().__init__(arrays, number, maximum=True)
        self.matrix = np.ascontiguousarray(self.kernel[:, 0])

    def of(self, x: np.ndarray) -> np.ndarray:
        """(187, 96) -> (187, filters)."""
        height = len(self.matrix)
        above = (height - 1) // 2  # TensorFlow's "same": an even filter sees one frame more below
        padded = np.pad(x, ((above, height - 1 - above), (0, 0)))
        rows = sliding_window_view(padded, height, axis=0)  # (187, 96, height), a view that BLAS takes as it lies
        return self(np.matmul(rows, self.matrix).max(axis=1))


class Middle(Layer):
    """Filters of 7 frames and everything below."""

    def of(self, x: np.ndarray) -> np.ndarray:
        """(187, width) -> (187, filters)."""
        height = len(self.kernel)
        padded = np.pad(x, ((height // 2, height // 2), (0, 0)))
        return self(sum(padded[n : n + FRAMES] @ self.kernel[n] for n in range(height)))


class Network:
    """The network of the paper for one window, without the tags. Thread-safe."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.input = normalisation(arrays, 0)
        self.wide = [Wide(arrays, n) for n in (0, 1)]  # 38 and 67 bands
        self.tall = [Tall(arrays, n) for n in (2, 3, 4)]  # 128, 64 and 32 frames
        self.middle = [Middle(arrays, n) for n in (5, 6, 7)]
        self.flat, self.last = normalisation(arrays, 9), normalisation(arrays, 10)
        self.dense, self.dense_bias = arrays["dense/kernel"], arrays["dense/bias"]

    def pooled(self, frames: Float32) -> Float32:
        """(187, 96) log-mel -> (2, 753): maximum and mean over time of the maps of all layers."""
        x = frames * self.input[0] + self.input[1]
        f = spectra(x)
        maps = [np.concatenate([*(wide.of(f) for wide in self.wide), *(tall.of(x) for tall in self.tall)], axis=1)]
        for number, layer in enumerate(self.middle):
            out = layer.of(maps[-1])
            maps.append(out + maps[-1] if number else out)
        every = np.concatenate(maps, axis=1)
        return np.stack([every.max(axis=0), every.mean(axis=0)])

    def penultimate(self, pooled: Float32) -> Float32:
        """(2, 753) -> (200,)."""
        flat = pooled.T.reshape(-1) * self.flat[0] + self.flat[1]
        out: Float32 = np.maximum(flat @ self.dense + self.dense_bias, 0) * self.last[0] + self.last[1]
        return out


class MusiCNNEncoder(Encoder):
    """Each sound is computed by one thread, as many sounds at once as there are processors (at most OMP_NUM_THREADS):
    a row's bits depend neither on its batch nor on the number of threads."""

    chunk = 32
    at_once = 1  # OpenBLAS is told its number of threads by the main thread alone

    def __init__(self, spec: MusiCNN) -> None:
        files = WEIGHTS.verified()
        self.spec = spec
        self.network = Network(tensor_bundle(files[INDEX], files[DATA]))
        self.filters = mel_filters(FFT // 2 + 1, MELS, RATE)
        self.dim = 200 if spec.features == "penultimate" else 2 * 753

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n sounds, each (N,) float32 mono at 16 kHz -> (n, dim) float32."""
        return np.stack(each(self._clip, batch))

    def _clip(self, sound: Any) -> Float32:
        """(N,) -> (dim,), averaged over the windows."""
        rows = []
        for frames in windows(log_mel(np.asarray(sound, np.float32), self.filters)):
            pooled = self.network.pooled(frames)
            penultimate = self.spec.features == "penultimate"
            rows.append(self.network.penultimate(pooled) if penultimate else pooled[::-1].reshape(-1))  # mean, maximum
        return np.mean(rows, axis=0, dtype=np.float32)
