"""Registry of retrievers: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.kinds import union
from fusionrec.recommenders.base import RetrieverSpec

if TYPE_CHECKING:
    AnyRetriever = RetrieverSpec
else:
    AnyRetriever = union(
        __name__,
        RetrieverSpec,
        [
            "blend",
            "bm3",
            "bpr",
            "content",
            "ease",
            "feature_ease",
            "freedom",
            "generated",
            "graph_filter",
            "ials",
            "item_knn",
            "lattice",
            "lightgcn",
            "mgcn",
            "modality_graph",
            "popularity",
            "spectral",
            "two_tower",
            "vbpr",
        ],
    )
