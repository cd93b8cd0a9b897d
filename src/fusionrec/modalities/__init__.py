"""Registry of modalities: one line each."""

from typing import Annotated

from pydantic import Field

from fusionrec.modalities.image import Image
from fusionrec.modalities.precomputed import Precomputed
from fusionrec.modalities.text import Text

AnyModality = Annotated[
    Image
    | Precomputed
    | Text,
    Field(discriminator="kind"),
]
