"""What encoders of sounds share: another sample rate, windows, and which positions hold sound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fusionrec.media.audio import RATE
from fusionrec.types import Bool, Float32

STEP = 320  # samples of one position of Whisper: 20 ms
SHORTEST = 0.5  # seconds; a last window with less than this is left out
QUIET = 10 ** (-50 / 20)  # a position more than 50 dB below the loudest holds no sound


def at_rate(sound: Float32, rate: int) -> Float32:
    """(N,) samples at 16 kHz -> at ``rate`` Hz (soxr, HQ). What lies above 8 kHz is not there to be had."""
    if rate == RATE:
        return sound
    import soxr

    out: Float32 = soxr.resample(sound, RATE, rate, quality="HQ")
    return out


def windows(sound: Float32, length: int, rate: int) -> Iterator[Float32]:
    """The sound in windows of ``length`` samples, one behind the other; less than half a second at the end is left out,
    and a sound that is shorter than that is repeated up to it."""
    least = int(SHORTEST * rate)
    if len(sound) < least:
        sound = np.tile(sound, -(-least // len(sound)))[:least]
    for start in range(0, len(sound), length):
        if start == 0 or len(sound) - start >= least:
            yield sound[start : start + length]


def sounding(sound: Float32) -> Bool:
    """(positions,) bool, one per 20 ms of (N,) samples: which hold sound; all of them where the whole is silent."""
    padded = np.zeros(-(-len(sound) // STEP) * STEP, np.float64)
    padded[: len(sound)] = sound
    level = np.sqrt((padded.reshape(-1, STEP) ** 2).mean(axis=1))
    loud: Bool = level > QUIET * level.max()
    return loud if loud.any() else np.ones(len(level), bool)
