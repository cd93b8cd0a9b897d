"""Pictures, learnt here: a small convolutional network (LeCun et al. 1998), for pictures that no ImageNet model knows,
or where a few thousand parameters must do.

Five 3 x 3 convolutions, each halving the side, group normalisation (Wu and He, arXiv 1803.08494: unlike batch
normalisation it does not make a picture's vector depend on its batch), the mean and the spread of the last maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from fusionrec.encoders.base import Accepts, Trainee
from fusionrec.encoders.learnt import Learning, LearntEncoderSpec, seeded
from fusionrec.media.image import RECIPE, square

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUPS = 8  # of channels that are normalised together


class SmallCNN(LearntEncoderSpec):
    """``side``: pictures are cut square and scaled to it; ``width``: channels after the first convolution, doubled
    after every other one."""

    accepts: ClassVar[Accepts] = "image"
    kind: Literal["small_cnn"] = "small_cnn"
    dim: PositiveInt = 64
    side: int = Field(64, ge=32, le=224, multiple_of=32)
    width: int = Field(16, ge=GROUPS, multiple_of=GROUPS)
    dropout: float = Field(0.1, ge=0, lt=1)
    learning: Learning = Learning()

    def facts(self) -> Mapping[str, object]:
        return {"side": self.side, "decode": RECIPE, "version": 1}

    def start(self) -> Trainee:
        return SmallCNNTrainee(self)


class SmallCNNTrainee(Trainee):
    """Prepared: the pictures of an item (P, side, side, 3) uint8."""

    def __init__(self, spec: SmallCNN) -> None:
        self.spec, self.dim = spec, spec.dim
        self.module = seeded(spec.learning.seed, lambda: _network(spec))

    def prepare(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        groups = [list(x) if isinstance(x, (list, tuple)) else [x] for x in inputs]
        return [np.stack([square(picture, self.spec.side) for picture in group]) for group in groups]

    def forward(self, prepared: Sequence[np.ndarray]) -> Tensor:
        """The mean over an item's pictures."""
        import torch

        device = next(self.module.parameters()).device
        pixels = torch.from_numpy(np.concatenate(prepared)).to(device).permute(0, 3, 1, 2)
        rows = self.module(pixels.float().div(127.5).sub(1.0).contiguous())
        count = torch.tensor([len(p) for p in prepared], device=device)
        owner = torch.repeat_interleave(torch.arange(len(prepared), device=device), count)
        return rows.new_zeros(len(prepared), self.dim).index_add(0, owner, rows) / count[:, None]


def _network(spec: SmallCNN) -> nn.Module:
    import torch
    from torch import nn

    channels = [3, *(spec.width * factor for factor in (1, 2, 2, 4, 4))]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                *(
                    nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, b), nn.ReLU())
                    for a, b in zip(channels, channels[1:], strict=False)
                )
            )
            self.drop = nn.Dropout(spec.dropout)
            self.out = nn.Linear(2 * channels[-1], spec.dim)

        def forward(self, x_B3SS: Tensor) -> Tensor:
            maps = self.layers(x_B3SS)
            spread = (maps.var((2, 3), correction=0) + 1e-5).sqrt()  # a gradient in flat maps too
            return self.out(self.drop(torch.cat([maps.mean((2, 3)), spread], 1)))

    return Network()
