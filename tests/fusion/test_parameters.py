"""How many parameters each fusion has: the column of docs/models.md. S = sum of the D_m, M modalities, width D."""

from __future__ import annotations

import pytest

from fusionrec.fusion import AnyFusion
from fusionrec.kinds import members

DIMS = {"a": 2, "b": 7, "c": 11}
S, M, D, STEPS = 20, 3, 16, 2
LINEAR, MLP = (S + M) * D, 2 * (S + M) * D + M * D * D
EXPECTED = {
    "concat": (S + 1 + M) * D,
    "weighted": LINEAR + M,
    "attention": LINEAR + 2 * D * D,
    "transform": MLP,
    "self_attention": LINEAR + 3 * D * D,
    "cross_attention": LINEAR + M * (M - 1) * D * D + (M * D + 1) * D,
    "graph": LINEAR + 2 * D * D + D + M * M + ((STEPS + 1) * D + 1) * D,
    "gated": MLP + (S + 1) * M,
    "spectrum": LINEAR + (M + 1) * 2 * (D // 2 + 1),
}
SPECS = {cls.model_fields["kind"].default: cls for cls in members(AnyFusion)}


@pytest.mark.parametrize("kind", EXPECTED)
def test_parameters(kind: str) -> None:
    module = SPECS[kind].model_validate({"kind": kind}).build(DIMS, D)
    assert sum(p.numel() for p in module.parameters()) == EXPECTED[kind]
