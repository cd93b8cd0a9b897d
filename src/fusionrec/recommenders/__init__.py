"""Registry of retrievers: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.kinds import union

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
            "popularity",
            "two_tower",
        ],
    )
