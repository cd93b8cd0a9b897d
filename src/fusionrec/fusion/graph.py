"""A small graph in every item (C7): its modality vectors are nodes that pass messages.

X_i^(t+1) = ReLU(sum_j alpha_ij X_j^(t)) over the present nodes, each itself included, ``steps`` times. alpha is
softmax_j(edge_ij + a . LeakyReLU(L X_i + R X_j)), the attention of GATv2 (arXiv:2105.14491) beside a weight learnt for
each edge. ReLU throws away half of the numbers and rounds of averaging make nodes alike, so the readout sees every
round (arXiv:1806.03536): the pooled nodes of rounds 0..steps side by side, mapped to the output width.
Cost per item: (sum(D_m) + steps (2 M D + 2 M M) + (steps + 1) D) D multiplications.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Graph(FusionSpec):
    """``kind: graph``."""

    kind: Literal["graph"] = "graph"
    steps: PositiveInt = Field(2, description="rounds of message passing")

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        """The natural width is the widest modality's."""
        import torch
        from torch import nn

        from fusionrec.fusion.tokens import Tokens, pool, softmax_present

        steps, width = self.steps, max(dims.values()) if dim is None else dim

        class GraphFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = width
                self.tokens = Tokens(dims, width)
                # Starts as: a node listens to itself most (e^2 = 7.4 times as much as to another), to all others alike.
                self.edge = nn.Parameter(2 * torch.eye(len(dims)))
                self.listen, self.speak = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
                self.score = nn.Parameter(torch.zeros(width))
                self.readout = nn.Linear((steps + 1) * width, width)
                nn.init.orthogonal_(self.readout.weight)

            def weights(self, node_BMD: Tensor, mask: Tensor) -> Tensor:
                """alpha (B, M, M): how much node i listens to node j; zero for absent j."""
                pair_BMMD = self.listen(node_BMD)[:, :, None] + self.speak(node_BMD)[:, None]
                return softmax_present(nn.functional.leaky_relu(pair_BMMD, 0.2) @ self.score + self.edge, mask[:, None])

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                node_BMD = self.tokens(x, mask)
                rounds = [pool(node_BMD, mask)]
                for _ in range(steps):
                    alpha_BMM = self.weights(node_BMD, mask).to(node_BMD.dtype)
                    node_BMD = torch.relu(alpha_BMM @ node_BMD) * mask[..., None]
                    rounds.append(pool(node_BMD, mask))
                return self.readout(torch.cat(rounds, dim=1))

        return GraphFusion()
