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
            "bpr",
            "content",
            "ease",
            "item_knn",
            "lightgcn",
            "popularity",
            "two_tower",
        ],
    )
