"""Pictures: the vision towers of CLIP and SigLIP, and plain vision transformers, through transformers.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020; Zhai et al.,
"Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343; Oquab et al., "DINOv2", arXiv 2304.07193.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.forward import Forward, Precision
from fusionrec.encoders.hub import Weights
from fusionrec.encoders.pictures import BATCH, averaged, no_strip
from fusionrec.encoders.pretrained import CONFIG, PROCESSOR, network, processor, staged
from fusionrec.encoders.weights import fingerprint
from fusionrec.errors import ConfigError
from fusionrec.media.image import RECIPE
from fusionrec.types import Float32

TYPES = {
    "clip": ("CLIPVisionModelWithProjection", "image_embeds"),
    "clip_vision_model": ("CLIPVisionModel", "pooler_output"),
    "siglip": ("SiglipVisionModel", "pooler_output"),
    "siglip_vision_model": ("SiglipVisionModel", "pooler_output"),
    "vit": ("ViTModel", "cls"),
    "deit": ("DeiTModel", "cls"),
    "dinov2": ("Dinov2Model", "cls"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "cls"),
    "dinov3_vit": ("DINOv3ViTModel", "cls"),
    "swin": ("SwinModel", "pooler_output"),
    "convnext": ("ConvNextModel", "pooler_output"),
}
"""Type of the model -> the class that is loaded, and which of its outputs is the vector: a joint space with text where
there is one, the first token, or the model's own pooling."""
LARGEST = 1024


class TransformersImage(EncoderSpec):
    """The picture's side, mean and deviation are those of the preprocessor_config.json beside the weights."""

    accepts: ClassVar[Accepts] = "image"
    kind: Literal["transformers_image"] = "transformers_image"
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
        return TransformersImageEncoder(self)


class TransformersImageEncoder(Encoder):
    """See :class:`TransformersImage`."""

    chunk = 64

    def __init__(self, spec: TransformersImage) -> None:
        self.spec = spec
        with staged(spec.weights.verified([CONFIG, *PROCESSOR]), TYPES) as (folder, kind):
            name, self.output = TYPES[kind]
            self.processor = processor(folder, "AutoImageProcessor")
            self.model = network(folder, name, optional=["pooler"] if self.output == "cls" else [])
        wide = no_strip(Image.fromarray(np.zeros((2, 1000, 3), np.uint8)))
        shape = tuple(self._pixels([wide]).shape)
        if len(shape) != 4 or max(shape[2:]) > LARGEST:
            raise ConfigError(
                f"{spec.weights} makes {shape[1:]} of a picture, expected (3, <= {LARGEST}, <= {LARGEST})"
            )
        self.forward = Forward(self.model, self._vectors, spec.precision)
        self.dim = self._rows([wide]).shape[1]

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n pictures (PIL RGB), or n sequences of pictures of one item -> (n, dim) float32; pictures of an item are
        averaged."""
        return averaged(batch, self._rows, self.forward.rows(BATCH))

    def _pixels(self, pictures: list[Any]) -> Any:
        # A processor that scales to height and width makes no huge picture of a strip.
        cut = [p if getattr(self.processor.size, "height", None) else no_strip(p) for p in pictures]
        return self.processor(images=cut, return_tensors="pt")["pixel_values"]

    def _rows(self, pictures: list[Any]) -> Float32:
        return self.forward(self._pixels(pictures))

    def _vectors(self, model: Any, pixels: Any) -> Any:
        """(n, 3, side, side) -> (n, dim)."""
        out = model(pixel_values=pixels)
        return out.last_hidden_state[:, 0] if self.output == "cls" else out[self.output]
