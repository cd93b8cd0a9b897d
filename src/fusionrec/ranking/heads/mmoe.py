"""Multi-gate mixture of experts: every task mixes the same experts with a gate of its own (Ma et al., "Modeling task
relationships in multi-task learning with multi-gate mixture-of-experts", KDD 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from fusionrec.ranking.heads.base import HeadSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class MMoE(HeadSpec):
    """``kind: mmoe``."""

    kind: Literal["mmoe"] = "mmoe"
    experts: PositiveInt = 4
    expert: PositiveInt = 64
    tower: PositiveInt = 32

    def build(self, width: int, tasks: tuple[str, ...], values: frozenset[str]) -> nn.Module:
        import torch
        from torch import nn

        from fusionrec.ranking.layers import Towers

        class Head(nn.Module):
            def __init__(self, experts: int, size: int, end: int) -> None:
                super().__init__()
                self.experts = nn.Linear(width, experts * size)
                self.gates = nn.ModuleDict({task: nn.Linear(width, experts) for task in tasks})
                self.towers = Towers(size, end, tasks, values)
                self.shape = (experts, size)

            def forward(self, z: Tensor) -> dict[str, Tensor]:
                known = torch.relu(self.experts(z)).view(-1, *self.shape)
                weight = {task: torch.softmax(gate(z), dim=1) for task, gate in self.gates.items()}
                mixed: dict[str, Tensor] = self.towers({t: (w[:, :, None] * known).sum(1) for t, w in weight.items()})
                return mixed

        return Head(self.experts, self.expert, self.tower)
