"""Mel filters (Slaney, Auditory Toolbox, 1998), as librosa makes them: shared ground of the sound encoders."""

from __future__ import annotations

import numpy as np

from fusionrec.types import Float32

_BREAK = 1000.0  # Hz; below it the scale is linear (200/3 Hz a mel), above it logarithmic (27 mels from 1 to 6.4 kHz)
_STEP = 200 / 3
_LOG = np.log(6.4) / 27


def mel_filters(bins: int, mels: int, rate: int) -> Float32:
    """(bins, mels) float32: triangles of equal area over the ``bins`` frequencies 0 to ``rate`` / 2."""
    top = _BREAK / _STEP + np.log(rate / 2 / _BREAK) / _LOG
    mel = np.linspace(0, top, mels + 2)
    edges = np.where(mel < _BREAK / _STEP, mel * _STEP, _BREAK * np.exp(_LOG * (mel - _BREAK / _STEP)))
    frequency = np.linspace(0, rate / 2, bins)[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rise, fall))
    out: Float32 = (triangles * 2 / (edges[2:] - edges[:-2])).astype(np.float32)
    return out
