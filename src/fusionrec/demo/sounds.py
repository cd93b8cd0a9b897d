"""Short musical clips: timbre, tempo and grit are planted; root, mode, order of notes and level are noise.

Mono, 16 kHz, 16 bit, 2 to 3 s. About 12 ms a clip.
"""

from __future__ import annotations

import io
import wave

import numpy as np
from scipy.signal import fftconvolve, lfilter

RATE = 16_000
NYQUIST = 0.46 * RATE
NOTES_PER_SECOND = {"drone": 0.34, "slow": 1.2, "medium": 3.0, "fast": 7.0}
SCALES = ((0, 4, 7, 12, 7, 4), (0, 3, 7, 10, 8, 3), (0, 2, 5, 7, 9, 12))


def _pluck(rng: np.random.Generator, hertz: float, n: int) -> np.ndarray:
    """A plucked string (Karplus and Strong 1983)."""
    period = max(2, round(RATE / hertz))
    burst = np.zeros(n)
    burst[:period] = rng.uniform(-1, 1, period)[:n]
    loop = np.zeros(period + 2)
    loop[0], loop[-2:] = 1, -0.5 * 0.996 ** (hertz / 220 + 0.2)
    return lfilter([1], loop, burst)


def _bell(rng: np.random.Generator, hertz: float, n: int) -> np.ndarray:
    """Frequency modulation with an inharmonic ratio (Chowning 1973)."""
    t = np.arange(n) / RATE
    ratio = 2.76 if hertz * 2.76 < NYQUIST else 1.4
    modulator = 4.5 * np.exp(-3 * t) * np.sin(2 * np.pi * hertz * ratio * t)
    return np.sin(2 * np.pi * hertz * t + modulator) * np.exp(-2.2 * t)


def _held(n: int, attack: float, release: float) -> np.ndarray:
    t = np.arange(n) / RATE
    return np.clip(np.minimum(t / attack, (n / RATE - t) / release), 0, 1)


def _bowed(rng: np.random.Generator, hertz: float, n: int) -> np.ndarray:
    t = np.arange(n) / RATE
    phase = 2 * np.pi * hertz * t + 0.0022 * hertz * np.sin(2 * np.pi * 5.4 * t + rng.uniform(0, 6))
    tone = sum(np.sin(k * phase) / k for k in range(1, 25) if k * hertz < NYQUIST)
    return 0.5 * tone * _held(n, 0.06, 0.08) * (1 + 0.05 * rng.standard_normal(n))


def _flute(rng: np.random.Generator, hertz: float, n: int) -> np.ndarray:
    t = np.arange(n) / RATE
    breath = lfilter([0.2], [1, -0.8], rng.standard_normal(n))
    tone = np.sin(2 * np.pi * hertz * t) + 0.12 * np.sin(4 * np.pi * hertz * t) + 0.10 * breath
    return 0.7 * tone * _held(n, 0.06, 0.08) * (1 + 0.12 * np.sin(2 * np.pi * 4.6 * t))


def _organ(rng: np.random.Generator, hertz: float, n: int) -> np.ndarray:
    t = np.arange(n) / RATE
    pipes = ((1, 1.0), (3, 0.7), (5, 0.5), (7, 0.35), (9, 0.25))
    tone = sum(a * np.sin(2 * np.pi * k * hertz * t) for k, a in pipes if k * hertz < NYQUIST)
    return 0.4 * tone * _held(n, 0.01, 0.02) * (1 + 0.25 * np.sin(2 * np.pi * 6.5 * t))


VOICES = {"pluck": _pluck, "bell": _bell, "bowed": _bowed, "flute": _flute, "organ": _organ}


def render(rng: np.random.Generator, timbre: str, tempo: str, grit: str) -> np.ndarray:
    """One clip, (n,) float32 in [-1, 1], n = 2 to 3 s at :data:`RATE`."""
    seconds = rng.uniform(2.0, 3.0)
    n = int(seconds * RATE)
    root = int(rng.choice([41, 53, 65, 79])) + int(rng.integers(-3, 4))
    scale, step = SCALES[int(rng.integers(3))], 1 / (NOTES_PER_SECOND[tempo] * rng.uniform(0.9, 1.1))
    at, k = (0.0, 0) if tempo == "drone" else (rng.uniform(0, min(0.3, step / 2)), int(rng.integers(6)))
    chord = {"drone": 3, "slow": 2}.get(tempo, 1)
    sound = np.zeros(n)
    while at < seconds - 0.05:
        length = min(step if timbre in ("bowed", "flute", "organ") else 1.6 * step, 3.0)
        for voice in range(chord):
            note = root + scale[(k + 2 * voice) % 6]
            tone = VOICES[timbre](rng, 440 * 2 ** ((note - 69) / 12), max(64, int(length * RATE)))
            start = int(at * RATE)
            tone = tone[: n - start]
            sound[start : start + len(tone)] += tone * rng.uniform(0.7, 1)
        at, k = at + step, k + 1
    return _room(rng, _dirt(rng, sound / max(float(np.abs(sound).max()), 1e-6), grit))


def _dirt(rng: np.random.Generator, sound: np.ndarray, grit: str) -> np.ndarray:
    if grit == "hiss":
        crackle = (rng.random(len(sound)) < 6e-4) * rng.uniform(-0.6, 0.6, len(sound))
        return sound + 0.06 * rng.standard_normal(len(sound)) + crackle
    return 0.8 * np.tanh(7 * sound) if grit == "drive" else sound


def _room(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """A short reverberation, soft ends, and a random level."""
    n = RATE // 4
    echo = 0.03 * np.exp(-np.arange(n) / (0.05 * RATE)) * rng.standard_normal(n)
    echo[0] = 1
    wet = fftconvolve(sound, echo)[: len(sound)] * _held(len(sound), 0.004, 0.03)
    return (wet / np.abs(wet).max() * rng.uniform(0.5, 0.95)).astype(np.float32)


def wav(sound: np.ndarray) -> bytes:
    """Encode (n,) float32 as 16-bit mono WAV."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(sound * 32767).astype("<i2").tobytes())
    return out.getvalue()
