"""Encoders whose weights are learnt here: what they have in common, and the folder of their weights.

The stage ``learn`` starts one (:meth:`LearntEncoderSpec.start`), trains its module on the recommendation objective and
seals the weights in data/encoders/<modality>/. Everybody else gets it from there (:meth:`LearntEncoderSpec.bound`): its
fingerprint holds the digest of the weights, so the store encodes again exactly when they change.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, PrivateAttr

from fusionrec.encoders.base import Encoder, EncoderSpec, Trainee
from fusionrec.encoders.weights import fingerprint, sha256_file
from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.types import Float32, Spec

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"


class Learning(Spec):
    """How an encoder learns (``recommenders/learning.py``); an epoch encodes each item about once."""

    epochs: PositiveInt = 60
    items: int = Field(256, ge=2, description="items that a step encodes")
    users: PositiveInt = Field(2048, description="users whose choices among them a step asks for, at most")
    lr: PositiveFloat = 3e-3
    weight_decay: float = Field(1e-5, ge=0)
    patience: NonNegativeInt = Field(8, description="validations without a better value before it stops; 0: never")
    metric: Literal["ndcg@20", "recall@20"] = "ndcg@20"
    seed: NonNegativeInt = 0


@dataclass(frozen=True)
class Learnt:
    """``path``: the file of the weights, ``digest``: its sha256 (hex), compared when they were found."""

    path: Path
    digest: str


class LearntEncoderSpec(EncoderSpec, ABC):
    """Base of the sections of encoders that learn; ``learning`` does not change what given weights compute."""

    learnt: ClassVar[bool] = True
    learning: Learning = Learning()
    _weights: Learnt | None = PrivateAttr(None)

    @abstractmethod
    def facts(self) -> Mapping[str, object]:
        """Everything beside the weights that changes the output, for the fingerprint."""

    @abstractmethod
    def start(self) -> Trainee:
        """The encoder before it has learnt, its random weights drawn from ``learning.seed`` alone."""

    def bound(self, folder: Path) -> Self:
        out = self.model_copy()
        out._weights = found(folder, self.model_dump(mode="json"))
        return out

    def fingerprint(self) -> str:
        return fingerprint(self.kind, weights=self._bound().digest, **self.facts())

    def build(self) -> Encoder:
        weights = self._bound()
        made = self.start()
        load(made.module, weights)
        return LearntEncoder(made)

    def _bound(self) -> Learnt:
        if self._weights is None:
            raise ConfigError(f"the encoder {self.kind} has no weights of its own: run the stage learn first")
        return self._weights


class LearntEncoder(Encoder):
    """A trainee that has learnt."""

    chunk = 64
    at_once = 1

    def __init__(self, made: Trainee) -> None:
        self.made, self.dim = made, made.dim
        made.module.eval()

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n inputs -> (n, dim) float32."""
        import torch

        with torch.inference_mode():
            out: Float32 = self.made.forward(self.made.prepare(batch)).float().numpy()
        return out


def found(folder: Path, encoder: Mapping[str, Any]) -> Learnt:
    """The weights in ``folder``, if they are sound and those of the section ``encoder``. Raises IntegrityError."""
    where = f"{folder.parent.name}/{folder.name}"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        recorded, own = str(manifest["files"].get(WEIGHTS)), manifest.get("encoder")
    except FileNotFoundError:
        raise IntegrityError(f"{where}/{MANIFEST} is missing; run the stage learn") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(f"{where}/{MANIFEST} is no manifest; run the stage learn again") from None
    if own != dict(encoder):
        raise IntegrityError(f"{where} was learnt with other settings than those of params.yaml; run the stage learn")
    path = folder / WEIGHTS
    if not path.is_file():
        raise IntegrityError(f"{where}/{WEIGHTS} is missing; restore it (`dvc checkout`) or run the stage learn again")
    actual = sha256_file(path)
    if actual != recorded:
        raise IntegrityError(
            f"{where}/{WEIGHTS} has sha256 {actual[:16]}..., expected {recorded[:16]}...; it is not loaded: restore it "
            "(`dvc checkout`) or run the stage learn again"
        )
    return Learnt(path, actual)


def load(module: nn.Module, weights: Learnt) -> None:
    """Put the weights into ``module``, the file hashed once more, so that what is parsed is what was recorded."""
    from safetensors.torch import load as parse

    content = weights.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != weights.digest:
        raise IntegrityError(
            f"{weights.path.parent.name}/{weights.path.name} changed while it was being read; it is not loaded"
        )
    module.load_state_dict(parse(content), strict=True)


def seeded(seed: int, make: Any) -> Any:
    """What ``make()`` gives with torch's generator seeded by ``seed``; the generator is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
