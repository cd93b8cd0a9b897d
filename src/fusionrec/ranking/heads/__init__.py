"""Registry of the heads of ranking networks: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.kinds import union
from fusionrec.ranking.heads.base import HeadSpec

if TYPE_CHECKING:
    AnyHead = HeadSpec
else:
    AnyHead = union(__name__, HeadSpec, ["esmm", "mmoe", "shared_bottom"])
