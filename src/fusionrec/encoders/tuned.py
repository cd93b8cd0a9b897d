"""A pretrained encoder fine-tuned on the recommendation objective: a head on its vectors, or its last layers too.

image:
  kind: image
  encoder: {kind: tuned, of: {kind: efficientnet_lite0}, what: full, layers: 2, learning: {lr: 0.00005}}

``what: head`` takes any encoder that has weights of its own or none: its vectors stay as they are, and a linear map of
them is learnt (the linear probe of transfer learning). ``what: full`` trains the last ``layers`` layers along, where
the encoder can be opened; the others stay (Howard and Ruder, arXiv 1801.06146, on how much of a network to unfreeze).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, PositiveInt, SerializeAsAny, TypeAdapter, model_validator

from fusionrec.encoders.base import Accepts, EncoderSpec, Trainee
from fusionrec.encoders.learnt import Learning, LearntEncoderSpec, seeded

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCK = 256
NARROW = 0.1
"""The least spread of an input of the head, as a share of the median one."""
MOST_LR = 5e-4  # for layers that know something already: from there on a few steps make all vectors alike
PACE = 50  # beside opened layers a head learns this much faster than the learning rate that suits them


def _any_encoder(value: Any) -> Any:
    from fusionrec.encoders import AnyEncoder  # the registry names this file too, so it is asked late

    return value if isinstance(value, EncoderSpec) else TypeAdapter(AnyEncoder).validate_python(value)


class Tuned(LearntEncoderSpec):
    """``of``: the encoder; ``dim``: the width of the head's vectors; ``layers``: how many of its last layers learn
    where ``what`` is full (at a learning rate that suits them, e.g. ``learning: {lr: 0.00005}``)."""

    kind: Literal["tuned"] = "tuned"
    of: Annotated[SerializeAsAny[EncoderSpec], BeforeValidator(_any_encoder)]
    what: Literal["head", "full"] = "head"
    layers: PositiveInt = 1
    dim: PositiveInt = 64
    dropout: float = Field(0.1, ge=0, lt=1, description="of the head's input")
    learning: Learning = Learning()

    @property
    def accepts(self) -> Accepts:  # type: ignore[override]
        return self.of.accepts

    @model_validator(mode="after")
    def _can(self) -> Tuned:
        if self.of.learnt:
            raise ValueError(f"of: {self.of.kind!r} is learnt as a whole already; use it without 'tuned'")
        if self.of.accepts == "vector":
            raise ValueError(f"of: {self.of.kind!r} hands vectors through; a recommender learns on them by itself")
        if self.of.accepts == "attributes":
            raise ValueError(
                f"of: {self.of.kind!r} has one column for each value; a recommender learns on them by itself"
            )
        most = self.of.openable
        if self.what == "full" and self.layers > most:
            what = f"at most {most} layers of {self.of.kind!r} can be trained" if most else (
                f"the encoder {self.of.kind!r} cannot be trained further"
            )  # fmt: skip
            raise ValueError(f"{what}, found what: full with layers: {self.layers}; use what: head or fewer layers")
        if self.what == "full" and self.learning.lr > MOST_LR:
            raise ValueError(
                f"learning.lr is {self.learning.lr:g}, expected at most {MOST_LR:g} where what is full: more destroys "
                "what the layers know. Write e.g. learning: {lr: 0.00005}"
            )
        return self

    def facts(self) -> Mapping[str, object]:
        opened = self.layers if self.what == "full" else 0
        return {"of": self.of.fingerprint(), "what": self.what, "layers": opened, "version": 2}

    def start(self) -> Trainee:
        return TunedTrainee(self)


class _Shut(Trainee):
    """An encoder of which nothing learns. Prepared: its vector (D,) float32."""

    def __init__(self, spec: EncoderSpec) -> None:
        from torch import nn

        self.encoder, self.module = spec.build(), nn.Identity()
        self.dim = self.encoder.dim

    def prepare(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        return list(self.encoder.encode(inputs))

    def forward(self, prepared: Sequence[np.ndarray]) -> Tensor:
        import torch

        return torch.from_numpy(np.stack(prepared))


class TunedTrainee(Trainee):
    """A head on what an inner trainee gives. The head's input is standardised by the items of the training split."""

    def __init__(self, spec: Tuned) -> None:
        self.spec, self.dim = spec, spec.dim
        self.inner = spec.of.opened(spec.layers) if spec.what == "full" else _Shut(spec.of)
        self.module = seeded(spec.learning.seed, lambda: _network(spec, self.inner))

    def prepare(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        return self.inner.prepare(inputs)

    def meet(self, prepared: Sequence[np.ndarray]) -> None:
        import torch

        self.module.eval()
        with torch.no_grad():
            blocks = [self.inner.forward(prepared[i : i + BLOCK]) for i in range(0, len(prepared), BLOCK)]
            self.module.settle(torch.cat(blocks))

    def forward(self, prepared: Sequence[np.ndarray]) -> Tensor:
        found: Tensor = self.module(self.inner.forward(prepared).to(self.module.mean.device))
        return found


def _network(spec: Tuned, inner: Trainee) -> nn.Module:
    import torch
    from torch import nn

    class Network(nn.Module):
        mean: Tensor
        spread: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner.module
            self.register_buffer("mean", torch.zeros(inner.dim))
            self.register_buffer("spread", torch.ones(inner.dim))
            self.drop = nn.Dropout(spec.dropout)
            self.out = nn.Linear(inner.dim, spec.dim)
            self.pace = PACE if spec.what == "full" else 1  # Adam's steps know no scale but that of the weights
            nn.init.orthogonal_(self.out.weight)  # likes stay alike before anything is learnt
            with torch.no_grad():
                self.out.weight.div_(self.pace)
                self.out.bias.div_(self.pace)

        def settle(self, x_ND: Tensor) -> None:
            self.mean.copy_(x_ND.mean(0))
            spread = x_ND.std(0, correction=0)
            # What hardly moves among these items would be blown up for a new one, what never moves without bound.
            floor = (NARROW * spread.median()).clamp(min=1e-6)
            self.spread.copy_(torch.where(spread < 1e-6, torch.inf, spread.maximum(floor)))

        def forward(self, x_BD: Tensor) -> Tensor:
            return self.pace * self.out(self.drop((x_BD - self.mean) / self.spread))

    return Network()
