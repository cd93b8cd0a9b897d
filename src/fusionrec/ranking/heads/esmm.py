"""Entire space multi-task model: p(conversion) = p(click) p(conversion | click), both learnt from all impressions (Ma
et al., "Entire space multi-task model", SIGIR 2018, arXiv:1804.07931).

The conversion tower is never trained on clicked impressions alone, which are not what it meets in use, and shares what
the far more frequent clicks teach. Tasks beside the two have towers of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from fusionrec.ranking.heads.base import HeadSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

CLICK, CONVERSION = "click", "conversion"


class ESMM(HeadSpec):
    """``kind: esmm``; needs the tasks click and conversion."""

    kind: Literal["esmm"] = "esmm"
    tower: PositiveInt = 32

    def build(self, width: int, tasks: tuple[str, ...], values: frozenset[str]) -> nn.Module:
        from torch import nn

        from fusionrec.ranking.layers import Towers

        absent = {CLICK, CONVERSION} - set(tasks)
        if absent:
            raise ValueError(f"esmm needs the tasks {CLICK} and {CONVERSION}; {', '.join(sorted(absent))} has no label")

        class Head(nn.Module):
            def __init__(self, size: int) -> None:
                super().__init__()
                self.towers = Towers(width, size, tasks, values)

            def forward(self, z: Tensor) -> dict[str, Tensor]:
                out: dict[str, Tensor] = self.towers(dict.fromkeys(tasks, z))
                return out | {CONVERSION: out[CLICK] + out[CONVERSION]}

        return Head(self.tower)
