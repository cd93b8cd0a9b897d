"""The ``monitor`` section of params.yaml."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt

from fusionrec.types import Spec


class Monitor(Spec):
    """When a batch counts as drifted. Both conditions must hold: a test that is significant after the correction, and
    an effect that matters."""

    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="probability of a false alarm of the whole verdict, not of one test"
    )
    min_effect: float = Field(
        0.2, ge=0, le=2, description="least effect that counts, in standard deviations (Cohen: 0.2 is small)"
    )
    min_rows: int = Field(20, ge=5, description="fewer values on one side: not computable")
    max_items: PositiveInt = Field(10_000, description="items of a side that are compared; a sample by hash of the id")
    max_vectors: PositiveInt = Field(5_000, description="vectors of a side that the domain classifier sees")
    max_events: PositiveInt = Field(1_000_000, description="interactions of a side; whole users are left out, by hash")
    draws: int = Field(2999, ge=999, le=99_999, description="bootstrap draws of the behaviour tests")
    seed: NonNegativeInt = 0
    keep: PositiveInt = Field(10, description="batches whose ingested tables are kept in the private state")
