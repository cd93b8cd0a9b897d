"""Registry of fusions: one line each."""

from typing import Annotated

from pydantic import Field

from fusionrec.fusion.attention import Attention
from fusionrec.fusion.concat import Concat
from fusionrec.fusion.weighted import Weighted

AnyFusion = Annotated[
    Attention
    | Concat
    | Weighted,
    Field(discriminator="kind"),
]
