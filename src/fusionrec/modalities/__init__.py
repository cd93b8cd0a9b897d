"""Registry of modalities: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.kinds import union
from fusionrec.modalities.base import ModalitySpec

if TYPE_CHECKING:
    AnyModality = ModalitySpec
else:
    AnyModality = union(
        __name__,
        ModalitySpec,
        [
            "attributes",
            "audio",
            "image",
            "precomputed",
            "soundtrack",
            "subtitles",
            "text",
            "video",
        ],
    )
