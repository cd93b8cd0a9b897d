"""The module of a ranking network: its fields and numbers, what mixes them, the head, and how much a place is seen.

Imports torch: :mod:`fusionrec.ranking.deep` imports this file inside functions. Legend as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fusionrec.ranking.layers import Examination
from fusionrec.ranking.rated import NAME

if TYPE_CHECKING:
    from fusionrec.fusion.base import FusionSpec
    from fusionrec.ranking.deep import DeepSpec
    from fusionrec.ranking.fields import Fields
    from fusionrec.ranking.words import Hearing
    from fusionrec.types import Int64

FOLLOWS_SIGHT = ("click", "conversion", "cart", "ad_click")
"""The tasks that presuppose that the place was looked at."""


class Network(nn.Module):
    """What :class:`fusionrec.ranking.deep.DeepRanker` trains; ``met``: see
    :class:`fusionrec.ranking.layers.Examination`; ``values``: the tasks that are no probabilities."""

    def __init__(
        self,
        spec: DeepSpec,
        fusion: FusionSpec,
        read: Fields,
        met: Int64,
        tasks: tuple[str, ...],
        values: frozenset[str],
        hearing: Hearing | None = None,
    ) -> None:
        super().__init__()
        rows, dims = read.sizes, read.space.dims
        if spec.past_rating and NAME in dims:
            raise ValueError(f"past_rating: the catalogue has a modality {NAME!r} of its own; give it another name")
        self.past_rating = spec.past_rating
        joined = {**dims, NAME: 1} if spec.past_rating else dims
        self.rating_at = sorted(joined).index(NAME) if spec.past_rating else -1
        self.tables = nn.ModuleList(nn.Embedding(n, spec.dim) for n in rows)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.05)
        self.fuse: Any = fusion.build(joined, spec.dim) if joined else None
        self.nothing = nn.Parameter(torch.zeros(spec.dim))  # the past of a user without one
        fields = len(rows) + (2 if self.fuse else 0)
        numbers = 1 + (len(dims) + 1 if self.fuse else 0)
        self.said: Any = None
        if hearing is not None:
            self.said = nn.Linear(hearing.width, spec.dim)
            self.silence = nn.Parameter(torch.zeros(spec.dim))  # the words of a user who has said none
            fields, numbers = fields + 1, numbers + 1 + hearing.compared
        self.mix: Any = spec.interaction(fields * spec.dim + numbers)
        self.head = spec.head.build(self.mix.width, tasks, values)
        self.examination = Examination(met)
        self.anchor = self.nothing  # says where the module is
        self.work = fields * spec.dim * self.mix.width

    def content(self, given: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """Fields: the item's fused vector and that of the past; numbers: how much they resemble each other."""
        item, past, offsets = given["item"], given["past"], given["offsets"]
        some = (given["count"] > 0).to(self.nothing.dtype)
        fused, mine = self.fused(given)

        def mean(x: Tensor) -> Tensor:
            return (
                nn.functional.embedding_bag(past, x, offsets, mode="mean")
                if len(past)
                else x.new_zeros((len(item), x.shape[1]))
            )

        def alike(x: Tensor, own: Tensor) -> Tensor:
            return nn.functional.cosine_similarity(own, mean(x), dim=1) * some

        profile = torch.where(some[:, None] > 0, mean(fused), self.nothing)
        each = [alike(x, x[item]) for _, x in sorted(given["x"].items())]
        return [mine, profile], [*each, alike(fused, mine)]

    def fused(self, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(R, D) of the different items, and (B, D) of the rows' own: a rating belongs to a row, it changes in time."""
        x, mask, item = given["x"], given["mask"], given["item"]
        if not self.past_rating:
            fused: Tensor = self.fuse(x, mask)
            return fused, fused[item]

        def joined(x: dict[str, Tensor], mask: Tensor, rating: Tensor, rated: Tensor) -> Tensor:
            left, right = mask[:, : self.rating_at], mask[:, self.rating_at :]
            out: Tensor = self.fuse({**x, NAME: rating}, torch.cat([left, rated[:, None], right], dim=1))
            return out

        nobody = mask.new_zeros(len(mask))
        own = {name: vectors[item] for name, vectors in x.items()}
        return (
            joined(x, mask, mask.new_zeros((len(mask), 1), dtype=torch.float32), nobody),
            joined(own, mask[item], given["rating"], given["rated"]),
        )

    def forward(self, given: dict[str, Any]) -> dict[str, Tensor]:
        """What ``DeepRanker._inputs`` gave, B rows -> task -> (B,) as heads give it, the place taken into account."""
        fields = [table(given["ids"][:, at]) for at, table in enumerate(self.tables)]
        numbers = [torch.log1p(given["count"]) / 4]
        if self.fuse is not None:
            vectors, likeness = self.content(given)
            fields, numbers = fields + vectors, numbers + likeness
        if self.said is not None:
            count = given["said_count"]
            fields.append(torch.where(count[:, None] > 0, self.said(given["said"]), self.silence))
            numbers += [torch.log1p(count) / 4, *given["said_alike"].unbind(1)]
        flat = torch.cat([*fields, torch.stack(numbers, dim=1)], dim=1)
        out = self.head(self.mix(torch.stack(fields, dim=1), flat))
        seen = self.examination(given["position"])
        return {task: x + seen if task in FOLLOWS_SIGHT else x for task, x in out.items()}
