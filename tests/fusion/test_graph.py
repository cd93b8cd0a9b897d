"""Worked by hand: X_a = (4, -8), X_b = (8, 4), one round."""

from __future__ import annotations

import torch

from fusionrec.fusion.graph import Graph
from tests.fusion.hand import LN3, build, close, fuse

DIMS = {"a": 1, "b": 2}
X = {"a": [1.0], "b": [8.0, 4.0]}
MAPS = {
    "tokens__project__0__weight": [[4.0], [-8.0]],
    "tokens__project__1__weight": [[1.0, 0.0], [0.0, 1.0]],
    "edge": [[0.0, LN3], [0.0, 0.0]],
}


def test_one_round_of_messages() -> None:
    """alpha_a = (1/4, 3/4): ReLU(1 + 6, -2 + 3) = (7, 1); alpha_b = (1/2, 1/2): ReLU(6, -2) = (6, 0).

    Pooled, over sqrt(2): (12, -4) before and (13, 1) after.
    """
    before = build(Graph(steps=1), DIMS, 2, readout__weight=[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], **MAPS)
    after = build(Graph(steps=1), DIMS, 2, readout__weight=[[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]], **MAPS)
    close(fuse(before, "ab", **X), 12 / 2**0.5, -4 / 2**0.5)
    close(fuse(after, "ab", **X), 13 / 2**0.5, 1 / 2**0.5)
    close(fuse(after, "a", **X), 4, 0)  # alone it hears itself only
    close(fuse(after, "", **X), 0, 0)


def test_two_rounds() -> None:
    """From (7, 1) and (6, 0): a = (7 + 18, 1) / 4, b = (13, 1) / 2; pooled (51, 3) / 4 over sqrt(2)."""
    readout = torch.zeros(2, 6)
    readout[0, 4] = readout[1, 5] = 1
    module = build(Graph(steps=2), DIMS, 2, readout__weight=readout.tolist(), **MAPS)
    close(fuse(module, "ab", **X), 51 / 4 / 2**0.5, 3 / 4 / 2**0.5)


def test_weights_also_follow_the_contents() -> None:
    """R = 1, a = (ln 3, 0): the score of node j is ln 3 LeakyReLU(first number of X_j); -5 becomes -1."""
    module = build(Graph(steps=1), DIMS, 2, speak__weight=[[1.0, 0.0], [0.0, 1.0]], score=[LN3, 0.0])
    with torch.no_grad():
        up = module.weights(torch.tensor([[[1.0, 6.0], [0.0, 7.0]]]), torch.tensor([[True, True]]))
        down = module.weights(torch.tensor([[[-5.0, 6.0], [0.0, 7.0]]]), torch.tensor([[True, True]]))
        alone = module.weights(torch.tensor([[[-5.0, 6.0], [0.0, 0.0]]]), torch.tensor([[True, False]]))
    close(up[0].flatten(), 0.75, 0.25, 0.75, 0.25)
    close(down[0].flatten(), 0.25, 0.75, 0.25, 0.75)
    close(alone[0].flatten(), 1, 0, 1, 0)
