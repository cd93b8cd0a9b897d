"""The split protocols: which of train, valid and test a positive pair belongs to.

*Random per user*: each pair is placed by a hash of (user, item, seed), so growth never moves an old pair. *Leave last
out*: a user's last pair is the test, the one before the validation. *Global time*: two cut-offs, the only protocol
without any leak from later to earlier (Meng et al., "Exploring Data Splitting Strategies for the Evaluation of
Recommendation Models", RecSys 2020). *Given*: the
data say it themselves.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import polars as pl
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fusionrec.errors import ConfigError, DataRejected
from fusionrec.types import Columns as C
from fusionrec.types import Spec

Place: TypeAlias = pl.Series
"""(N,) UInt8: 0 train, 1 valid, 2 test."""


def pair_hash(pairs: pl.DataFrame, seed: int) -> np.ndarray:
    """(N,) float64 in [0, 1), a function of (user, item, seed) alone."""
    out = np.empty(pairs.height, np.uint64)
    start = f"{seed}\n".encode()
    for row, (user, item) in enumerate(zip(pairs[C.USER].to_list(), pairs[C.ITEM].to_list(), strict=True)):
        out[row] = int.from_bytes(hashlib.sha256(start + f"{user}\n{item}".encode()).digest()[:8])
    return (out >> np.uint64(11)).astype(np.float64) / 2.0**53


def item_hash(ids: list[str], seed: int) -> np.ndarray:
    """(I,) float64 in [0, 1), a function of (item, seed) alone."""
    digests = [hashlib.sha256(f"{seed}\nitem\n{i}".encode()).digest()[:8] for i in ids]
    return np.array([int.from_bytes(d) >> 11 for d in digests], np.float64) / 2.0**53


class Protocol(Spec):
    """Base of the protocols."""

    kind: Any

    def place(self, pairs: pl.DataFrame, first_day: date | None) -> Place:
        """The part of each positive pair. Raises ConfigError or DataRejected where the data do not allow it."""
        raise NotImplementedError

    def place_rows(self, rows: pl.DataFrame, pairs: pl.DataFrame, places: Place, first_day: date | None) -> Place:
        """The part of each row of what was shown (user, item, time of the last thing it tells of), so that none of
        train tells of a positive of valid or test; ``places`` are those of ``pairs``."""
        return self.place(rows, first_day)

    def windows(self, first_day: date | None) -> dict[str, str]:
        """Bounds in time, where the protocol has any."""
        return {}


class RandomPerUser(Protocol):
    """Each pair independently, by hash; a user's shares approach the ratios as the user's history grows."""

    kind: Literal["random_per_user"] = "random_per_user"
    ratios: tuple[float, float, float] = (8.0, 1.0, 1.0)
    seed: NonNegativeInt = 0
    cold_items: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the items, by hash of the id, kept out of train: half in valid only, half in test only",
    )

    @model_validator(mode="after")
    def _ratios(self) -> RandomPerUser:
        if min(self.ratios) < 0 or self.ratios[0] <= 0:
            raise ValueError(f"ratios must not be negative and train's must be positive, found {list(self.ratios)}")
        return self

    def place(self, pairs: pl.DataFrame, first_day: date | None) -> Place:
        bounds = np.cumsum(self.ratios)[:2] / sum(self.ratios)
        place = np.searchsorted(bounds, pair_hash(pairs, self.seed), side="right").astype(np.uint8)
        if self.cold_items:
            ids = pairs[C.ITEM].unique().to_list()
            known = dict(zip(ids, item_hash(ids, self.seed), strict=True))
            h = np.array([known[i] for i in pairs[C.ITEM].to_list()])
            place = np.where(h < self.cold_items / 2, 1, np.where(h < self.cold_items, 2, place))
        return pl.Series("place", place, dtype=pl.UInt8)


class LeaveLastOut(Protocol):
    """A user's last pair is test, the one before valid. Users with one pair stay in train, with two they have no
    valid."""

    kind: Literal["leave_last_out"] = "leave_last_out"
    seed: NonNegativeInt = Field(0, description="orders pairs of one user with the same timestamp")

    def place(self, pairs: pl.DataFrame, first_day: date | None) -> Place:
        _need_time(pairs, self.kind)
        ranked = pairs.select(C.USER, C.TIME, tie=pl.Series(pair_hash(pairs, self.seed))).with_row_index("row")
        ranked = ranked.sort(C.TIME, "tie", "row").with_columns(
            size=pl.len().over(C.USER), back=pl.len().over(C.USER) - 1 - pl.int_range(pl.len()).over(C.USER)
        )
        place = (
            pl.when((pl.col("back") == 0) & (pl.col("size") >= 2))
            .then(2)
            .when((pl.col("back") == 1) & (pl.col("size") >= 3))
            .then(1)
            .otherwise(0)
        )
        return ranked.sort("row").select(place.cast(pl.UInt8).alias("place")).to_series()

    def place_rows(self, rows: pl.DataFrame, pairs: pl.DataFrame, places: Place, first_day: date | None) -> Place:
        """From the user's positive of valid on in valid, from that of test on in test."""
        late = pairs.with_columns(places.alias("place")).filter(pl.col("place") > 0)
        starts = late.group_by(C.USER).agg(
            *[pl.col(C.TIME).filter(pl.col("place") == at).min().alias(f"from_{at}") for at in (1, 2)]
        )
        found = rows.select(C.USER, C.TIME).join(starts, on=C.USER, how="left", maintain_order="left")
        after = [(pl.col(C.TIME) >= pl.col(f"from_{at}")).fill_null(False) for at in (1, 2)]
        return found.select(
            pl.when(after[1]).then(2).when(after[0]).then(1).otherwise(0).cast(pl.UInt8).alias("place")
        ).to_series()


class GlobalTime(Protocol):
    """Before ``valid_from`` train, before ``test_from`` valid, then test. A whole number is a day of the log, its first
    is 1."""

    kind: Literal["global_time"] = "global_time"
    valid_from: PositiveInt | datetime | date
    test_from: PositiveInt | datetime | date

    @model_validator(mode="before")
    @classmethod
    def _iso(cls, raw: Any) -> Any:
        """Texts are ISO dates or times: a bare number in quotes is refused rather than read as an epoch."""
        if isinstance(raw, dict):
            out = dict(raw)
            for name in ("valid_from", "test_from"):
                if isinstance(out.get(name), str):
                    try:
                        out[name] = datetime.fromisoformat(out[name])
                    except ValueError:
                        raise ValueError(f"{name}: found {out[name]!r}, expected an ISO date or a day number") from None
            return out
        return raw

    @model_validator(mode="after")
    def _order(self) -> GlobalTime:
        if isinstance(self.valid_from, int) != isinstance(self.test_from, int):
            raise ValueError("valid_from and test_from must both be day numbers or both be dates")
        start = date(2000, 1, 1)
        if _cut(self.valid_from, start) >= _cut(self.test_from, start):
            raise ValueError(f"valid_from ({self.valid_from}) must be earlier than test_from ({self.test_from})")
        return self

    def place(self, pairs: pl.DataFrame, first_day: date | None) -> Place:
        _need_time(pairs, self.kind)
        cuts = [_cut(c, first_day) for c in (self.valid_from, self.test_from)]
        return pairs.select(
            ((pl.col(C.TIME) >= cuts[0]).cast(pl.UInt8) + (pl.col(C.TIME) >= cuts[1]).cast(pl.UInt8)).alias("place")
        ).to_series()

    def windows(self, first_day: date | None) -> dict[str, str]:
        return {n: iso(_cut(getattr(self, n), first_day)) for n in ("valid_from", "test_from")}


class Given(Protocol):
    """The split that the data carry in the column ``x_label``: 0 train, 1 valid, 2 test (the MMRec format)."""

    kind: Literal["given"] = "given"

    def place(self, pairs: pl.DataFrame, first_day: date | None) -> Place:
        if C.LABEL not in pairs.columns:
            raise DataRejected(
                f"split.kind: given needs the column {C.LABEL} in the interactions (0 train, 1 valid, 2 test) and this "
                "log has none; choose another split"
            )
        label = pairs[C.LABEL].cast(pl.Int64, strict=False)
        odd = pairs.filter(~label.is_in([0, 1, 2]).fill_null(False))
        if odd.height:
            raise DataRejected(
                f"{C.LABEL}: {odd.height} of {pairs.height} pairs hold another value than 0 (train), 1 (valid) or 2 "
                f"(test); found e.g. {odd[C.LABEL][0]!r}"
            )
        return label.cast(pl.UInt8).alias("place")


AnySplit = Annotated[RandomPerUser | LeaveLastOut | GlobalTime | Given, Field(discriminator="kind")]


def _cut(value: int | date | datetime, first_day: date | None) -> datetime:
    if isinstance(value, int):
        if first_day is None:
            raise ValueError("a day number needs the first day of the log")
        value = first_day + timedelta(days=value - 1)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _need_time(pairs: pl.DataFrame, kind: str) -> None:
    if pairs[C.TIME].null_count():
        raise ConfigError(
            f"split.kind: {kind} needs timestamps and this log has none; "
            "without timestamps only random_per_user is possible (or given, where the data carry a split)"
        )
