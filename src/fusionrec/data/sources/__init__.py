"""Registry of sources: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.data.sources.base import SourceSpec
from fusionrec.kinds import union

if TYPE_CHECKING:
    AnySource = SourceSpec
else:
    AnySource = union(
        __name__,
        SourceSpec,
        [
            "folder",
            "mmrec",
        ],
    )
