"""Registry of retrievers: one line each."""

from typing import Annotated

from pydantic import Field

from fusionrec.recommenders.blend import Blend
from fusionrec.recommenders.bpr import BPR
from fusionrec.recommenders.content import Content
from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.item_knn import ItemKNN
from fusionrec.recommenders.popularity import Popularity
from fusionrec.recommenders.two_tower import TwoTower

AnyRetriever = Annotated[
    BPR
    | Blend
    | Content
    | EASE
    | ItemKNN
    | Popularity
    | TwoTower,
    Field(discriminator="kind"),
]
