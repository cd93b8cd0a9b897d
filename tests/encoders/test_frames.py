"""Frames through a picture encoder: the mean, then the mean absolute change."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from fusionrec.encoders.base import Encoder
from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0
from fusionrec.encoders.frames import Frames, FramesEncoder
from fusionrec.media.video import Clip


class Brightness(Encoder):
    """Stands for a picture encoder: (mean, 1) of a picture."""

    dim = 2

    def encode(self, pictures):
        return np.array([[np.asarray(p).mean(), 1] for p in pictures], np.float32)


def clip(values: list[int], windows: list[list[int]]) -> Clip:
    frames = np.stack([np.full((4, 5, 3), v, np.uint8) for v in values])
    spread = np.array([w + [-1] * (8 - len(w)) for w in windows], np.int16)
    return Clip(frames, np.arange(len(values)) / 15, spread, np.full((len(windows), 16), -1, np.int16), 1.0, 5, 4)


def test_mean_and_mean_absolute_change_by_hand():
    batch = [clip([10, 40, 20], [[0, 1, 2]]), clip([7], [[0]]), clip([10, 20, 50, 90], [[0, 1], [2, 3]])]
    encoder = FramesEncoder(Brightness())
    assert encoder.dim == 4
    np.testing.assert_allclose(
        encoder.encode(batch),
        [[70 / 3, 1, 25, 0], [7, 1, 0, 0], [(15 + 70) / 2, 1, (10 + 40) / 2, 0]],
        rtol=1e-6,
    )


def test_the_default_is_the_pooled_final_layer_and_other_kinds_of_encoder_are_refused():
    assert Frames().image == EfficientNetLite0(features="final")
    other = Frames.model_validate({"kind": "frames", "image": {"kind": "efficientnet_lite0", "precision": "bf16"}})
    assert other.fingerprint() != Frames().fingerprint()
    with pytest.raises(ValidationError, match="reads text"):
        Frames.model_validate({"kind": "frames", "image": {"kind": "minilm"}})
