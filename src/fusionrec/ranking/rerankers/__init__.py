"""Registry of re-rankers: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.kinds import union
from fusionrec.ranking.rerankers.base import RerankerSpec

if TYPE_CHECKING:
    AnyReranker = RerankerSpec
else:
    AnyReranker = union(__name__, RerankerSpec, ["mmr"])
