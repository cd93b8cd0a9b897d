"""Registry of rankers: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.kinds import union
from fusionrec.ranking.base import RankerSpec

if TYPE_CHECKING:
    AnyRanker = RankerSpec
else:
    AnyRanker = union(
        __name__,
        RankerSpec,
        [
            "biases",
            "boosting",
            "concat_dense",
            "dcn_v2",
            "deepfm",
            "logistic",
            "stack",
        ],
    )
