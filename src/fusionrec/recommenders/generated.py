"""Any retriever over a catalogue whose missing vectors are generated from those that an item has (B11).

A multimodal variational autoencoder (Wu and Goodman, "Multimodal generative models for scalable weakly-supervised
learning", NeurIPS 2018, arXiv:1802.05335): every modality has a Gaussian encoder and a decoder; what an item has is
joined as a product of experts with the prior, so that any subset of modalities gives one code. In training some of an
item's modalities are hidden from the encoders and all that it has is asked of the decoders (arbitrary conditioning,
Ivanov et al., ICLR 2019, arXiv:1806.02382). It learns on items with training interactions that have at least two
modalities, in the principal components of each after standardising (:class:`fusionrec.fusion.space.FeatureSpace`), in
proportion to their deviation, so that the many small ones, noise mostly, count for little. Each component has a noise
of its own: one that nothing foretells is left at its mean.

What is generated is the decoders' answer to the mean of the code. The wrapped retriever sees a catalogue where it
stands in the row of the missing modality and the mask says present, when it is fitted and whenever a catalogue is
attached. A vector that an item has is never touched; an item without any modality stays without. A modality whose
generated vectors are no better than the mean, on items held out of the autoencoder's training, stays missing too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, PositiveInt, SerializeAsAny, TypeAdapter

from fusionrec.fusion.base import FusionSpec
from fusionrec.fusion.space import FeatureSpace
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.recommenders.training import Training, draws, load_state, share, state_arrays, tensor, train
from fusionrec.types import Bool, Float32, Int64, Interactions, ItemSet, Requests

if TYPE_CHECKING:
    from torch import Tensor, nn

HELD = 0.15  # share of the items that tell when to stop and whether a modality is worth generating
FEWEST = 20  # items with two modalities; from fewer nothing is learnt and nothing generated
BLOCK = 8192  # items generated at once
FLAGS = ("retrieval", "folds_in", "cold_user", "cold_item", "needs_time", "max_items", "relative")


def _any_retriever(value: Any) -> Any:
    from fusionrec.recommenders import AnyRetriever  # the registry names this file too, so it is asked late

    return value if isinstance(value, RetrieverSpec) else TypeAdapter(AnyRetriever).validate_python(value)


class Generated(RetrieverSpec):
    """``kind: generated``; ``of`` is the retriever that sees the completed catalogue."""

    kind: Literal["generated"] = "generated"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "width": (8, 16, 32, 64),
        "latent": (8, 16, 32, 64),
        "training.lr": (1e-3, 2e-3, 5e-3),
    }
    of: Annotated[SerializeAsAny[RetrieverSpec], BeforeValidator(_any_retriever)]
    width: PositiveInt = Field(16, description="principal components of each modality that are generated")
    latent: PositiveInt = Field(32, description="numbers of the code")
    hidden: PositiveInt = Field(128, description="width of the encoders' and decoders' inner layer")
    hide: float = Field(0.5, gt=0, lt=1, description="chance that a modality of an item is hidden in a step")
    kl: float = Field(0.3, ge=0, description="weight of the divergence from the prior")
    training: Training = Training(epochs=300, batch=64, lr=2e-3, weight_decay=1e-4, patience=10, valid_every=5)

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return GeneratedRetriever(self, self.of.build(fusion))


class GeneratedRetriever(Retriever):
    """Promises what the retriever inside promises. ``worth`` (M,): the explained share of the held-out vectors of each
    of ``space.modalities``, 0 where nothing was learnt."""

    retrieval = "dense"  # until the retriever inside says otherwise

    def __init__(self, spec: Generated, of: Retriever) -> None:
        self.spec, self.of = spec, of
        self.net: Any = None  # where nothing can be generated
        for flag in FLAGS:
            setattr(self, flag, getattr(of, flag))

    def _fit(self, train_set: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        touched = np.zeros(len(items), bool)
        touched[train_set.item] = True
        self._learn(items, touched & (items.mask().sum(1) >= 2), seed, watch)
        self.of.fit(train_set, valid, self.complete(items), seed=seed, watch=watch)

    def _learn(self, items: ItemSet, use: Bool, seed: int, watch: Watch) -> None:
        """Fit the autoencoder on the items ``use`` (I,)."""
        import torch

        self.space = FeatureSpace(self.spec.width)
        if use.sum() >= FEWEST:
            self.space.fit(items, use)
            laid = {name: np.ascontiguousarray(array) for name, array in self.space.arrays().items()}
            self.space = FeatureSpace.restore(laid)  # sums are rounded by how an array lies; a bundle's lie like this
        torch.manual_seed(seed)
        self._begin()
        if self.net is None:
            return
        vectors, mask = self._components(items)
        rows = np.random.default_rng([seed, 11]).permutation(np.flatnonzero(use))
        held, learnt = np.split(rows, [max(int(HELD * len(rows)), 1)])

        def batches(epoch: int) -> Iterator[Callable[[], Tensor]]:
            rng = draws(seed, epoch)
            order = rng.permutation(learnt)
            for start in range(0, len(order), self.spec.training.batch):
                part = share(order[start : start + self.spec.training.batch])
                yield partial(self._loss, {m: x[part] for m, x in vectors.items()}, mask[part], rng)

        def told(epoch: int, values: Mapping[str, float]) -> None:
            """Under names of its own: what is explained is no metric of recommendations."""
            watch(epoch, {f"vae_{name.partition('_')[0]}": value for name, value in values.items()})

        how, dims = self.spec.training, sum(self.space.dims.values())
        explained = partial(self._explained, vectors, mask, held)
        train(
            self.net, batches, lambda: float(explained().mean()), how, told, seed, how.batch * dims * self.spec.hidden
        )
        self.worth = explained()

    def _loss(self, vectors: Mapping[str, Float32], mask: Bool, rng: np.random.Generator) -> Tensor:
        """The mean over B items of the decoders' surprise at what they have, plus the code's divergence."""
        shown = mask & (rng.random(mask.shape) >= self.spec.hide)
        none = np.flatnonzero(~shown.any(1) & mask.any(1))
        last = np.argmax(np.where(mask[none], rng.random((len(none), mask.shape[1])), -1), axis=1)
        shown[none, last] = True  # one is always shown
        device = next(self.net.parameters()).device
        x = [tensor(vectors[m], device) for m in self.space.modalities]
        return self.net.surprise(x, tensor(shown, device), tensor(mask, device), self.spec.kl)

    def _explained(self, vectors: Mapping[str, Float32], mask: Bool, rows: Int64) -> np.ndarray:
        """(M,) 1 - squared error / squared length of each modality of the items ``rows``, hidden one at a time."""
        out = np.zeros(mask.shape[1])
        for column, name in enumerate(self.space.modalities):
            have = rows[mask[rows, column] & (mask[rows].sum(1) >= 2)]
            shown = mask[have].copy()
            shown[:, column] = False
            truth = vectors[name][have]
            made = self._generate({m: x[have] for m, x in vectors.items()}, shown)[column]
            if truth.any():
                out[column] = 1 - float(((truth - made) ** 2).sum() / (truth**2).sum())
        return out

    def _generate(self, vectors: Mapping[str, Float32], shown: Bool) -> list[Float32]:
        """For each modality (B, d_m): what the decoders say to the mean of the code of what is ``shown`` (B, M)."""
        import torch

        device = next(self.net.parameters()).device
        out: list[list[Float32]] = [[np.zeros((0, d), np.float32)] for d in self.space.dims.values()]
        self.net.eval()
        with torch.no_grad():
            for start in range(0, len(shown), BLOCK):
                part = slice(start, start + BLOCK)
                x = [tensor(vectors[m][part], device) for m in self.space.modalities]
                mean, _ = self.net.code(x, tensor(shown[part], device))
                for column, made in enumerate(self.net.decoded(mean)):
                    out[column].append(made.cpu().numpy())
        return [np.concatenate(blocks) for blocks in out]

    def complete(self, items: ItemSet) -> ItemSet:
        """The catalogue with a generated vector in the place of each missing one; ``items`` stays as it is."""
        if self.net is None:
            return items
        vectors, mask = self._components(items)
        lacking = np.flatnonzero(mask.any(1) & ~mask.all(1))
        made = self._generate({m: x[lacking] for m, x in vectors.items()}, mask[lacking])
        features, present = dict(items.features), dict(items.present)
        for column, name in enumerate(self.space.modalities):
            need = ~mask[lacking, column]
            if name not in features or self.worth[column] <= 0 or not need.any():
                continue
            rows = lacking[need]
            features[name] = features[name].copy()
            features[name][rows] = self._raw(name, made[column][need], items.group[name][rows])
            present[name] = present[name].copy()
            present[name][rows] = True
        return replace(items, features=features, present=present)

    def _components(self, items: ItemSet) -> tuple[dict[str, Float32], Bool]:
        """Modality -> (I, d_m), the strongest component with a deviation near 1, and the (I, M) mask."""
        vectors, mask = self.space.apply(items)
        return {m: x * self.deviation[m] for m, x in vectors.items()}, mask

    def _raw(self, name: str, z: Float32, group: np.ndarray) -> Float32:
        """Components (n, d) -> vectors (n, D) as the encoder gives them; what is beyond the components is at
        its mean."""
        a = self.space.arrays()
        at = np.zeros(len(z), np.int64)
        for position, known in enumerate(a[f"space/{name}/groups"]):
            at[group == known] = position
        standard = z / self.deviation[name] @ self.back[name] + a[f"space/{name}/centre"]
        return (standard * a[f"space/{name}/scale"][at] + a[f"space/{name}/mean"][at]).astype(np.float32)

    def _begin(self) -> None:
        """An untrained network for the space there is, or none where there are not two modalities."""
        dims = self.space.dims
        self.worth = np.zeros(len(dims))
        basis = {m: self.space.arrays()[f"space/{m}/basis"] for m in dims}
        self.back = {m: np.linalg.pinv(b) for m, b in basis.items()}
        self.deviation = {m: _proportions(np.linalg.norm(b, axis=0)) for m, b in basis.items()}
        self.net = _network(self.spec, list(dims.values())) if len(dims) > 1 else None

    def _attached(self) -> None:
        self.of.attach(self.complete(self.items))

    def _score(self, requests: Requests) -> Float32:
        return self.of.score(requests)

    def vectors_item(self) -> Float32 | None:
        return self.of.vectors_item()

    def vectors_user(self, requests: Requests) -> Float32 | None:
        return self.of.vectors_user(requests)

    def arrays(self) -> dict[str, np.ndarray]:
        own = self.space.arrays() | {"worth": self.worth}
        weights = {} if self.net is None else state_arrays(self.net, "vae")
        return own | weights | {f"of.{name}": array for name, array in self.of.arrays().items()}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.space = FeatureSpace.restore(arrays)
        self._begin()
        if self.net is not None:
            load_state(self.net, dict(arrays), "vae")
            self.net.eval()
        self.worth = np.asarray(arrays["worth"], np.float64)
        inner = {name.removeprefix("of."): array for name, array in arrays.items() if name.startswith("of.")}
        self.of.restore(inner, self.fit_ids)


def _proportions(length: Float32) -> Float32:
    """Columns of a whitening basis have the length one over their component's deviation, or 0 where nothing varies:
    (d,) the deviations, the greatest 1."""
    varies = length > 0
    return np.where(varies, length[varies].min(initial=np.inf) / np.where(varies, length, 1), 1).astype(np.float32)


def _network(spec: Generated, dims: list[int]) -> nn.Module:
    import torch
    from torch import nn

    def layers(width: int, out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, spec.hidden), nn.SiLU(), nn.Linear(spec.hidden, out))

    class Autoencoder(nn.Module):
        """Modalities by their place; L numbers of the code."""

        def __init__(self) -> None:
            super().__init__()
            self.encoders = nn.ModuleList(layers(d, 2 * spec.latent) for d in dims)
            self.decoders = nn.ModuleList(layers(spec.latent, d) for d in dims)
            self.noise = nn.ParameterList(nn.Parameter(torch.zeros(d)) for d in dims)  # log variances

        def code(self, x: list[Tensor], shown: Tensor) -> tuple[Tensor, Tensor]:
            """-> (B, L) mean and precision: the product of the shown experts and of the prior N(0, 1)."""
            total = torch.ones(len(shown), spec.latent, device=shown.device)
            weighted = torch.zeros_like(total)
            for column, encoder in enumerate(self.encoders):
                mean, log_precision = encoder(x[column]).chunk(2, dim=1)
                precision = log_precision.clamp(-8, 8).exp() * shown[:, column : column + 1]
                total, weighted = total + precision, weighted + precision * mean
            return weighted / total, total

        def decoded(self, code: Tensor) -> list[Tensor]:
            return [decoder(code) for decoder in self.decoders]

        def surprise(self, x: list[Tensor], shown: Tensor, wanted: Tensor, kl: float) -> Tensor:
            mean, precision = self.code(x, shown)
            code = mean + torch.randn_like(mean) * precision.rsqrt()
            loss = 0.5 * kl * (mean**2 + 1 / precision - 1 + precision.log()).sum(1)
            for column, made in enumerate(self.decoded(code)):
                off = (x[column] - made) ** 2 * (-self.noise[column]).exp() + self.noise[column]
                loss = loss + 0.5 * off.sum(1) * wanted[:, column]
            return loss.mean()

    return Autoencoder()
