"""Shared bottom: one representation, a small tower for each task (Caruana, "Multitask learning", 1997)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from fusionrec.ranking.heads.base import HeadSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class SharedBottom(HeadSpec):
    """``kind: shared_bottom``."""

    kind: Literal["shared_bottom"] = "shared_bottom"
    tower: PositiveInt = 32

    def build(self, width: int, tasks: tuple[str, ...], values: frozenset[str]) -> nn.Module:
        from torch import nn

        from fusionrec.ranking.layers import Towers

        class Head(nn.Module):
            def __init__(self, size: int) -> None:
                super().__init__()
                self.towers = Towers(width, size, tasks, values)

            def forward(self, z: Tensor) -> dict[str, Tensor]:
                out: dict[str, Tensor] = self.towers(dict.fromkeys(tasks, z))
                return out

        return Head(self.tower)
