"""Registry of sources: one line each."""

from typing import Annotated

from pydantic import Field

from fusionrec.data.sources.folder import FolderSource

AnySource = Annotated[FolderSource, Field()]
