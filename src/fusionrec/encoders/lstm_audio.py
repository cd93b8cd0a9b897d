"""Sounds, learnt here: an LSTM over log-mel frames (both directions, the mean of its states over the sound).

The frames are those of the usual front ends for sound (64 ms windows, log of the power in mel bands); the recurrent
layer over them as in Graves, Mohamed and Hinton, "Speech recognition with deep recurrent neural networks", ICASSP 2013,
arXiv 1303.5778, here with one layer and a vector of the whole at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field, PositiveInt

from fusionrec.encoders.base import Accepts, Trainee
from fusionrec.encoders.learnt import Learning, LearntEncoderSpec, seeded
from fusionrec.encoders.mel import mel_filters
from fusionrec.encoders.sequences import mean_states, padded
from fusionrec.media.audio import RECIPE
from fusionrec.types import Float32

if TYPE_CHECKING:
    from torch import Tensor, nn

RATE = 16_000  # what the modality hands over
FFT, HOP = 1024, 512


class LSTMAudio(LearntEncoderSpec):
    """``max_seconds``: how much of the beginning is read; an LSTM takes as many steps as there are frames (31 a
    second)."""

    accepts: ClassVar[Accepts] = "audio"
    kind: Literal["lstm_audio"] = "lstm_audio"
    dim: PositiveInt = 64
    mels: PositiveInt = Field(48, le=128)
    hidden: PositiveInt = Field(64, description="numbers of the LSTM's state, in each direction")
    max_seconds: float = Field(10.0, gt=0, le=60)
    dropout: float = Field(0.1, ge=0, lt=1, description="chance that a frame is hidden in a step")
    learning: Learning = Learning()

    def facts(self) -> Mapping[str, object]:
        return {"mels": self.mels, "max_seconds": self.max_seconds, "decode": RECIPE, "version": 1}

    def start(self) -> Trainee:
        return LSTMAudioTrainee(self)


def log_mel(sound: Float32, filters: Float32) -> Float32:
    """(N,) samples at 16 kHz -> (T, mels) float32, 0 in silence: log10(10000 power + 1) of windows of 1024 samples, 512
    apart; a sound shorter than a window is continued with silence."""
    whole = np.pad(sound, (0, max(FFT - len(sound), 0)))
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
    spectrum = np.fft.rfft(sliding_window_view(whole, FFT)[::HOP] * hann, axis=1)
    power = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)
    out: Float32 = np.log10(np.float32(10_000) * (power @ filters) + np.float32(1)).astype(np.float32)
    return out


class LSTMAudioTrainee(Trainee):
    """Prepared: the frames of a sound (T, mels) float32."""

    work = 0.0  # a state waits for the one before it

    def __init__(self, spec: LSTMAudio) -> None:
        self.spec, self.dim = spec, spec.dim
        self.filters = mel_filters(FFT // 2 + 1, spec.mels, RATE)
        self.module = seeded(spec.learning.seed, lambda: _network(spec))

    def prepare(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        longest = int(self.spec.max_seconds * RATE)
        return [log_mel(np.asarray(sound, np.float32)[:longest], self.filters) for sound in inputs]

    def forward(self, prepared: Sequence[np.ndarray]) -> Tensor:
        import torch

        frames, lengths = padded(prepared)
        device = next(self.module.parameters()).device
        found: Tensor = self.module(torch.from_numpy(frames).to(device), torch.from_numpy(lengths))
        return found


def _network(spec: LSTMAudio) -> nn.Module:
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout1d(spec.dropout)
            self.ahead, self.back = (nn.LSTM(spec.mels, spec.hidden, batch_first=True) for _ in range(2))
            self.out = nn.Linear(spec.mels + 2 * spec.hidden, spec.dim)

        def forward(self, x_BTM: Tensor, lengths_B: Tensor) -> Tensor:
            return self.out(mean_states(self.ahead, self.back, self.drop(x_BTM), lengths_B))

    return Network()
