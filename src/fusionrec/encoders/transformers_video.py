"""Clips: VideoMAE and TimeSformer through transformers.

Tong et al., "VideoMAE", arXiv 2203.12602; Bertasius et al., "Is Space-Time Attention All You Need for Video
Understanding?", arXiv 2102.05095.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.forward import Forward, Precision, each
from fusionrec.encoders.hub import Weights
from fusionrec.encoders.pictures import middle
from fusionrec.encoders.pretrained import CONFIG, PROCESSOR, network, processor, staged
from fusionrec.encoders.weights import fingerprint
from fusionrec.errors import ConfigError
from fusionrec.media.video import RECIPE, Clip
from fusionrec.types import Float32

TYPES = {
    "timesformer": ("TimesformerModel", "TimesformerVideoProcessor", "cls"),
    "videomae": ("VideoMAEModel", "VideoMAEVideoProcessor", "mean"),
}
"""Type of the model -> the class that is loaded, the one that makes its input, and which tokens are the vector."""
MOST_FRAMES, LARGEST = 64, 512


class TransformersVideo(EncoderSpec):
    """A window of a clip (2 s) is seen in as many frames as the model was trained with, spread evenly over it; a clip
    of several windows is their mean. Frames come with at most 160 pixels on their short side and are scaled up."""

    accepts: ClassVar[Accepts] = "video"
    kind: Literal["transformers_video"] = "transformers_video"
    weights: Weights
    precision: Precision = "fp32"

    def fingerprint(self) -> str:
        return fingerprint(
            self.kind,
            weights=self.weights.digest([CONFIG, *PROCESSOR]),
            precision=self.precision,
            decode=RECIPE,
            version=2,
        )

    def build(self) -> Encoder:
        return TransformersVideoEncoder(self)


def moments(clip: Clip, window: int, count: int) -> list[int]:
    """``count`` rows of ``clip.frames``: the decoded frames of the window that lie next to as many moments, spread
    evenly from its first frame to its last. A frame may serve twice (outside of the middle there are four a second)."""
    rows = np.unique(np.concatenate([clip.spread[window], clip.dense[window]]))
    rows = rows[rows >= 0]
    wanted = np.linspace(clip.times[rows[0]], clip.times[rows[-1]], count)
    nearest = np.abs(clip.times[rows][None, :] - wanted[:, None]).argmin(axis=1)
    return [int(r) for r in rows[nearest]]


class TransformersVideoEncoder(Encoder):
    """One clip a thread, its windows together."""

    chunk = 8

    def __init__(self, spec: TransformersVideo) -> None:
        self.spec = spec
        with staged(spec.weights.verified([CONFIG, *PROCESSOR]), TYPES) as (folder, kind):
            name, reader, self.tokens = TYPES[kind]
            self.processor = processor(folder, reader)
            self.model = network(folder, name)
        self.count = int(self.model.config.num_frames)
        if not 1 <= self.count <= MOST_FRAMES:
            raise ConfigError(f"{spec.weights} reads {self.count} frames, expected 1 to {MOST_FRAMES}")
        blank = self._pixels(np.zeros((self.count, 4, 16, 3), np.uint8))
        if max(blank.shape[-2:]) > LARGEST:
            raise ConfigError(f"{spec.weights} makes {tuple(blank.shape)} of a window, expected sides <= {LARGEST}")
        self.forward = Forward(self.model, self._vectors, spec.precision)
        self.dim = self.forward(blank).shape[1]

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n clips -> (n, dim) float32."""
        return np.stack(each(self._clip, batch))

    def _clip(self, clip: Clip) -> Float32:
        import torch

        windows = [self._pixels(clip.frames[moments(clip, w, self.count)]) for w in range(len(clip.spread))]
        return np.mean(self.forward(torch.cat(windows)), axis=0, dtype=np.float32)

    def _pixels(self, frames: np.ndarray) -> Any:
        """(T, h, w, 3) uint8 -> (1, T, 3, side, side)."""
        import torch

        left, top, right, bottom = middle(frames.shape[2], frames.shape[1])
        # Colours first: where height or width is 3 the library takes the first of them for the colours.
        cut = torch.from_numpy(np.ascontiguousarray(frames[:, top:bottom, left:right].transpose(0, 3, 1, 2)))
        return self.processor(videos=[cut], do_sample_frames=False, return_tensors="pt")["pixel_values"]

    def _vectors(self, model: Any, pixels: Any) -> Any:
        """(n, T, 3, side, side) -> (n, dim)."""
        hidden = model(pixel_values=pixels).last_hidden_state.float()
        return hidden[:, 0] if self.tokens == "cls" else hidden.mean(1)
