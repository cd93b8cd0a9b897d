"""Registry of modalities: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.modalities.base import ModalitySpec
from fusionrec.kinds import union

if TYPE_CHECKING:
    AnyModality = ModalitySpec
else:
    AnyModality = union(
        __name__,
        ModalitySpec,
        [
            "image",
            "precomputed",
            "text",
        ],
    )
