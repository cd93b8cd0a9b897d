"""Pictures: any backbone of timm by its name (ViT, DINO, ResNet, VGG, EfficientNet, ConvNeXt, ...), pooled.

Wightman, "PyTorch Image Models", doi 10.5281/zenodo.4414861. Size, mean, deviation, interpolation and crop are those
that the weights were trained with: their config.json says them, else timm's own list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.forward import Forward, Precision
from fusionrec.encoders.hub import Weights, tensors
from fusionrec.encoders.pictures import BATCH, averaged, no_strip
from fusionrec.encoders.weights import fingerprint
from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.media.image import RECIPE
from fusionrec.types import Float32

if TYPE_CHECKING:
    from torch import nn

CONFIG = "config.json"
DATA = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "num_classes")
"""What is taken from the ``pretrained_cfg`` of a config.json; the rest of it (places of other files) is not."""
ARGUMENTS = ("img_size", "global_pool")
"""What is taken from its ``model_args``."""
LARGEST = 1024


class TimmImage(EncoderSpec):
    """``model``: a name of timm, with its tag (vit_small_patch14_dinov2.lvd142m, vgg16.tv_in1k); ``weights``: where its
    model.safetensors is. The vector is what the model gives without its classifier."""

    accepts: ClassVar[Accepts] = "image"
    kind: Literal["timm_image"] = "timm_image"
    model: str = Field(pattern=r"^\w+(\.\w+)?$")
    weights: Weights
    precision: Precision = "fp32"

    def fingerprint(self) -> str:
        return fingerprint(
            self.kind,
            model=self.model,
            weights=self.weights.digest([CONFIG]),
            precision=self.precision,
            decode=RECIPE,
            version=2,
        )

    def build(self) -> Encoder:
        return TimmImageEncoder(self)


class TimmImageEncoder(Encoder):
    """See :class:`TimmImage`."""

    chunk = 64

    def __init__(self, spec: TimmImage) -> None:
        files = spec.weights.verified([CONFIG])
        self.spec = spec
        import timm
        import torch

        self.model = network(spec.model, files)
        data = timm.data.resolve_model_data_config(self.model)
        channels, *sides = data["input_size"]
        if channels != 3 or max(sides) > LARGEST:
            raise ConfigError(f"{spec.model} reads pictures of {data['input_size']}, expected (3, <= {LARGEST}, ...)")
        self.transform = timm.data.create_transform(**data, is_training=False)
        self.cuts = data["crop_mode"] == "center"
        with torch.inference_mode():
            shape = tuple(self.model(torch.zeros(1, channels, *sides)).shape)
        if len(shape) != 2:
            raise ConfigError(f"{spec.model} gives {shape} for one picture, expected one pooled vector; take another")
        self.dim = shape[1]
        self.forward = Forward(self.model, lambda model, pixels: model(pixels), spec.precision, channels_last=True)

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n pictures (PIL RGB), or n sequences of pictures of one item -> (n, dim) float32; pictures of an item are
        averaged."""
        return averaged(batch, self._rows, self.forward.rows(BATCH))

    def _rows(self, pictures: list[Any]) -> Float32:
        import torch

        return self.forward(torch.stack([self.transform(no_strip(p) if self.cuts else p) for p in pictures]))


def network(name: str, files: Mapping[str, Path]) -> nn.Module:
    """The model with every weight of the file in its place and without its classifier, in evaluation mode.

    Raises ConfigError for a name that timm does not know, and IntegrityError where the weights are another model's.
    """
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"timm {timm.__version__} knows no model {name!r}{hint}")
    known = timm.get_pretrained_cfg(name)
    overlay, arguments = _config(name, files.get(CONFIG))
    state = tensors(dict(files))
    heads = known.classifier if known and known.classifier else ()
    sizes = [
        len(state[f"{h}.weight"]) for h in ([heads] if isinstance(heads, str) else heads) if f"{h}.weight" in state
    ]
    wanted = [*sizes[:1], overlay.get("num_classes"), known.num_classes if known else None, 0]
    wrong: Exception | None = None
    for classes in dict.fromkeys(n for n in wanted if n is not None):
        try:
            # With as many classes as the file has, timm compares the names of all weights (strict).
            model = timm.create_model(
                name,
                pretrained=True,
                num_classes=classes,
                pretrained_cfg_overlay={**overlay, "num_classes": classes, "state_dict": dict(state)},
                **arguments,
            )
        except (RuntimeError, KeyError, ValueError, TypeError, AssertionError) as error:
            wrong = wrong or error
            continue
        model.reset_classifier(0)
        model.pretrained_cfg.pop("state_dict")  # it would keep every weight twice
        return model.eval()
    raise IntegrityError(f"the weights do not fit {name}: {' '.join(str(wrong).split())[:400]}")


def _config(name: str, path: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what replaces timm's own settings of the data, arguments of the model) as a config.json says."""
    if path is None:
        return {}, {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        architecture, given = found["architecture"], found.get("pretrained_cfg", {})
        arguments = found.get("model_args") or {}
        overlay = {key: given[key] for key in DATA if given.get(key) is not None}
        overlay |= {key: tuple(value) for key, value in overlay.items() if isinstance(value, list)}
        if isinstance(found.get("num_classes"), int):
            overlay["num_classes"] = found["num_classes"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no config.json of timm ({type(error).__name__}: {error})") from None
    if architecture != name.partition(".")[0]:
        raise ConfigError(f"{path} is of a {architecture}, expected one of {name}; write model: {architecture}")
    if unknown := sorted(set(arguments) - {*ARGUMENTS, "num_classes", "in_chans"}):
        raise ConfigError(
            f"{path}: model_args {', '.join(unknown)}; only {' and '.join(ARGUMENTS)} are taken from there"
        )
    return overlay, {key: arguments[key] for key in ARGUMENTS if arguments.get(key) is not None}
