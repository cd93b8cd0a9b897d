"""Registry of fusions: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.fusion.base import FusionSpec
from fusionrec.kinds import union

if TYPE_CHECKING:
    AnyFusion = FusionSpec
else:
    AnyFusion = union(
        __name__,
        FusionSpec,
        [
            "attention",
            "concat",
            "cross_attention",
            "gated",
            "graph",
            "self_attention",
            "spectrum",
            "transform",
            "weighted",
        ],
    )
