"""Clips: the 3-D convolutional networks of torchvision, R3D, MC3 and R(2+1)D with 18 layers (512-d).

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", arXiv 1711.11248; they were trained
on 16 frames at 15 a second, which is what a clip's ``dense`` frames are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.forward import Forward, Precision, each
from fusionrec.encoders.hub import Weights, tensors
from fusionrec.encoders.weights import fingerprint
from fusionrec.errors import IntegrityError
from fusionrec.media.video import RECIPE, Clip
from fusionrec.types import Float32


class TorchvisionVideo(EncoderSpec):
    """``weights``: a .safetensors file of the model's own names (torchvision publishes pickles: see docs/encoders.md).
    The vector is what the classifier would see."""

    accepts: ClassVar[Accepts] = "video"
    kind: Literal["torchvision_video"] = "torchvision_video"
    model: Literal["r3d_18", "mc3_18", "r2plus1d_18"] = "r2plus1d_18"
    weights: Weights
    precision: Precision = "fp32"

    def fingerprint(self) -> str:
        return fingerprint(
            self.kind,
            model=self.model,
            weights=self.weights.digest(),
            precision=self.precision,
            decode=RECIPE,
            version=2,
        )

    def build(self) -> Encoder:
        return TorchvisionVideoEncoder(self)


class TorchvisionVideoEncoder(Encoder):
    """One clip a thread, its windows together."""

    dim = 512
    chunk = 8

    def __init__(self, spec: TorchvisionVideo) -> None:
        self.spec = spec
        state = tensors(spec.weights.verified())
        import torch
        from torchvision import models

        classes = len(state["fc.weight"]) if "fc.weight" in state else 1
        model = models.get_model(spec.model, weights=None, num_classes=classes)
        if "fc.weight" not in state:
            model.fc = torch.nn.Identity()
        try:
            model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            message = " ".join(str(error).split())[:400]
            raise IntegrityError(f"weights: {spec.weights} does not fit {spec.model}: {message}") from None
        model.fc = torch.nn.Identity()
        self.forward = Forward(model.eval(), lambda network, windows: network(windows), spec.precision)
        self.transform = models.get_model_weights(spec.model).DEFAULT.transforms()

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n clips -> (n, 512) float32: the mean over a clip's windows."""
        return np.stack(each(self._clip, batch))

    def _clip(self, clip: Clip) -> Float32:
        import torch

        rows = [row[np.maximum.accumulate(np.where(row >= 0, np.arange(len(row)), 0))] for row in clip.dense]
        return np.mean(self.forward(torch.stack([self._window(clip.frames[row]) for row in rows])), 0, np.float32)

    def _window(self, frames: np.ndarray) -> Any:
        """(16, h, w, 3) uint8, the last one repeated where the clip is shorter -> (3, 16, side, side)."""
        import torch

        return self.transform(torch.from_numpy(frames).permute(0, 3, 1, 2))
