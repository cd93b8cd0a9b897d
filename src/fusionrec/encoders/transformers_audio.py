"""Sounds through transformers: AST (all kinds of sound), CLAP (sound and words), Wav2Vec2, HuBERT, WavLM and Whisper's
encoder (speech).

Gong et al., "AST", arXiv 2104.01778; Wu et al., "Large-scale Contrastive Language-Audio Pretraining", arXiv 2211.06687;
Baevski et al., "wav2vec 2.0", arXiv 2006.11477; Radford et al., "Whisper", arXiv 2212.04356.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.forward import Forward, Precision, each
from fusionrec.encoders.hub import Weights
from fusionrec.encoders.pretrained import CONFIG, PROCESSOR, network, processor, staged
from fusionrec.encoders.sounds import STEP, at_rate, sounding, windows
from fusionrec.encoders.weights import fingerprint
from fusionrec.errors import ConfigError
from fusionrec.media.audio import RECIPE
from fusionrec.types import Float32

TYPES = {
    "audio-spectrogram-transformer": ("ASTModel", "ASTFeatureExtractor"),
    "clap": ("ClapAudioModelWithProjection", "ClapFeatureExtractor"),
    "hubert": ("HubertModel", "Wav2Vec2FeatureExtractor"),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2FeatureExtractor"),
    "wavlm": ("WavLMModel", "Wav2Vec2FeatureExtractor"),
    "whisper": ("WhisperModel", "WhisperFeatureExtractor"),
}
"""Type of the model -> the class that is loaded, and the one that makes its input."""
OUTPUTS = {
    "audio-spectrogram-transformer": ("input_values", "pooler_output"),
    "clap": ("input_features", "audio_embeds"),
    "whisper": ("input_features", "last_hidden_state"),
}
"""Type of the model -> what its input is called, and which of its outputs is used."""
WAVES = ("input_values", "last_hidden_state")
"""The same of the others."""


class TransformersAudio(EncoderSpec):
    """A sound is cut into the windows that the model knows (AST 10.24 s, CLAP 10 s, Whisper 30 s; Wav2Vec2, HuBERT and
    WavLM, which know no limit, ``seconds``); its vector is their mean, each weighted by its length. A window's vector
    is the model's own pooling (AST, CLAP) or the mean over time; for Whisper over the positions that hold sound."""

    accepts: ClassVar[Accepts] = "audio"
    kind: Literal["transformers_audio"] = "transformers_audio"
    weights: Weights
    seconds: float = Field(20.0, ge=1, le=60)
    precision: Precision = "fp32"

    def fingerprint(self) -> str:
        return fingerprint(
            self.kind,
            weights=self.weights.digest([CONFIG, *PROCESSOR]),
            seconds=self.seconds,
            precision=self.precision,
            decode=RECIPE,
            version=2,
        )

    def build(self) -> Encoder:
        return TransformersAudioEncoder(self)


class TransformersAudioEncoder(Encoder):
    """One sound a thread, one window at a time."""

    chunk = 8

    def __init__(self, spec: TransformersAudio) -> None:
        self.spec = spec
        with staged(spec.weights.verified([CONFIG, *PROCESSOR]), TYPES) as (folder, self.type):
            name, extractor = TYPES[self.type]
            self.features = processor(folder, extractor)
            self.model = network(folder, name, optional=["masked_spec_embed", "decoder."])
        if self.type == "whisper":
            self.model = self.model.get_encoder()
        self.rate = int(self.features.sampling_rate)
        if not 8_000 <= self.rate <= 96_000:
            raise ConfigError(f"{spec.weights} reads sound at {self.rate} Hz, expected 8,000 to 96,000")
        self.window = {
            "audio-spectrogram-transformer": lambda: self.features.max_length * self.rate // 100,  # frames of 10 ms
            "clap": lambda: self.features.nb_max_samples,
            "whisper": lambda: self.features.n_samples,
        }.get(self.type, lambda: int(spec.seconds * self.rate))()
        self.forward = Forward(self.model, self._output, spec.precision)
        self.dim = len(self._window(np.full(self.rate, 0.1, np.float32)))

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n sounds, each (N,) float32 mono at 16 kHz -> (n, dim) float32."""
        return np.stack(each(self._clip, [np.asarray(sound, np.float32) for sound in batch]))

    def _clip(self, sound: Float32) -> Float32:
        """(N,) -> (dim,)."""
        parts = list(windows(at_rate(sound, self.rate), self.window, self.rate))
        if self.type == "whisper":
            return self._spoken(parts)
        share = np.array([len(part) for part in parts]) / sum(len(part) for part in parts)
        out: Float32 = (share @ np.stack([self._window(part) for part in parts])).astype(np.float32)
        return out

    def _spoken(self, parts: Sequence[Float32]) -> Float32:
        """The mean over every position of all windows that holds sound; what is loud is judged over the whole clip."""
        keep = sounding(np.concatenate(parts))
        total, at = np.zeros(self.dim, np.float64), 0
        for part in parts:
            kept = keep[at : at + -(-len(part) // STEP)]
            if kept.any():
                total += self._states(part)[: len(kept)][kept].sum(axis=0, dtype=np.float64)
            at += len(kept)
        return (total / keep.sum()).astype(np.float32)

    def _window(self, part: Float32) -> Float32:
        """At most ``window`` samples -> (dim,)."""
        out = self._out(part)
        if self.type == "clap":
            return np.asarray(out / np.linalg.norm(out))  # as the library's get_audio_features gives it
        if self.type == "audio-spectrogram-transformer":
            return out
        return np.asarray(out.mean(axis=0, dtype=np.float64).astype(np.float32))

    def _states(self, part: Float32) -> Float32:
        """At most ``window`` samples -> (positions, dim)."""
        return self._out(part)

    def _out(self, part: Float32) -> Float32:
        """What the model gives for one window: its own pooling, or its states."""
        # One window: nothing is padded that the models would not hear anyway, so no mask.
        given = self.features(part, sampling_rate=self.rate, return_tensors="pt")
        return np.asarray(self.forward(given[OUTPUTS.get(self.type, WAVES)[0]])[0])

    def _output(self, model: Any, heard: Any) -> Any:
        name, output = OUTPUTS.get(self.type, WAVES)
        return model(**{name: heard})[output]
