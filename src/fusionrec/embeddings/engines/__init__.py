"""Registry of who encodes the shards: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.embeddings.shards import EngineSpec
from fusionrec.kinds import union

if TYPE_CHECKING:
    AnyEngine = EngineSpec
else:
    AnyEngine = union(__name__, EngineSpec, ["local", "ray"], key="engine")
