"""Which items may be answered at all: simple conditions on columns of the catalogue."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from fusionrec.data.schema import printable
from fusionrec.errors import UsageError
from fusionrec.modalities.text import subtag
from fusionrec.types import Bool, Spec
from fusionrec.types import Columns as C

if TYPE_CHECKING:
    import polars as pl

PRICE, IN_STOCK = "price", "in_stock"


class Filters(Spec):
    """All that are set must hold. An item whose cell is empty meets no condition on that column."""

    category: tuple[str, ...] = ()
    language: str | None = None
    in_stock: bool = False
    min_price: float | None = None
    max_price: float | None = None

    def mask(self, items: pl.DataFrame) -> Bool:
        """(I,) bool over the item table. Raises UsageError for a column that it lacks, and a category or language
        that nobody has."""
        import polars as pl

        keep = pl.lit(True)
        if self.category:
            _need(items, C.CATEGORY, "category")
            have = items[C.CATEGORY].str.to_lowercase()
            wanted = [_known(have, one.lower(), "category", "has the category") for one in self.category]
            keep &= pl.col(C.CATEGORY).str.to_lowercase().is_in(wanted)
        if self.language:
            _need(items, C.LANGUAGE, "language")
            spoken = items.select(_language(pl.col(C.LANGUAGE)))[C.LANGUAGE]
            wanted_language = _known(spoken, subtag(self.language), "language", "is described in")
            keep &= _language(pl.col(C.LANGUAGE)) == wanted_language
        if self.in_stock:
            _need(items, IN_STOCK, "in-stock")
            keep &= pl.col(IN_STOCK)
        for bound, name in ((self.min_price, "min-price"), (self.max_price, "max-price")):
            if bound is not None:
                _need(items, PRICE, name)
                if not np.isfinite(bound):
                    raise UsageError(f"--{name}: found {bound}, expected a number")
                keep &= pl.col(PRICE) >= bound if name == "min-price" else pl.col(PRICE) <= bound
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise UsageError(f"--min-price {self.min_price:g} is above --max-price {self.max_price:g}")
        found: Bool = items.select(keep.fill_null(False).alias("keep"))["keep"].to_numpy()
        return np.broadcast_to(found, (len(items),)) if len(found) != len(items) else found


def checked(**settings: object) -> Filters:
    """Filters of these settings. Raises UsageError where one has the wrong type (a caller's JSON)."""
    try:
        return Filters.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"filter {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _need(items: pl.DataFrame, column: str, option: str) -> None:
    if column not in items.columns or items[column].null_count() == len(items):
        raise UsageError(f"--{option}: this catalogue has no {column}; leave the filter out")


def _language(column: pl.Expr) -> pl.Expr:
    """:func:`fusionrec.modalities.text.subtag` of a column."""
    return column.str.strip_chars().str.to_lowercase().str.extract("^([^-_]*)")


def _known(column: pl.Series, wanted: str, option: str, says: str) -> str:
    """``wanted``. Raises UsageError with the nearest one where no item has it."""
    have = sorted(set(column.drop_nulls().to_list()))
    if wanted in have:
        return wanted
    near = get_close_matches(wanted, have, 1)
    hint = f"did you mean '{printable(near[0])}'?" if near else "found " + ", ".join(map(printable, have[:8]))
    raise UsageError(f"--{option}: no item {says} '{printable(wanted)}'; {hint}")
