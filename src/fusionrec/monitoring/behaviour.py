"""Did users change what they do? Event mix, activity, concentration, and what they choose given what is on offer.

Interactions are not independent: those of a user share a taste, those of an item its appeal. So each statistic is
written as a sum of contributions of users and one of items, and its null distribution is a two-way cluster multiplier
bootstrap: every user's and every item's contribution gets a random sign (Davezies, D'Haultfoeuille & Guyonvarch 2021,
"Empirical process results for exchangeable arrays"; MacKinnon, Nielsen & Webb 2021, "Wild bootstrap and asymptotic
inference with multiway clustering"). A user or item that stands on both sides has one contribution, the difference, so
the same code is right for a new week of the same shop and for a new catalogue. Noise that belongs to neither is counted
twice, which makes the tests conservative.

Content is taken out: what was chosen is compared with what was on offer on the same side, in units of that side. When
all pictures become darker, the chosen ones do too, and the difference stays.

Legend: N interactions, U users, I items (both over the two sides), P statistics, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from fusionrec.monitoring import words
from fusionrec.monitoring.sides import Side, codes, offered
from fusionrec.monitoring.spec import Monitor
from fusionrec.monitoring.verdict import CAP, Measure, cohens_h
from fusionrec.types import Columns as C

BEHAVIOUR = "behaviour"
MIN_PAIRS = 200
AXES = 16
METHOD = "two-way cluster bootstrap"


@dataclass(frozen=True)
class _Sample:
    """A statistic's value (P,) on one side and what each interaction and each item on offer contributes to it."""

    value: NDArray[np.float64]
    rows: NDArray[np.float64]  # (N, P)
    users: pl.Series  # (N,)
    items: pl.Series | None = None  # (N,), None: items do not matter
    offers: NDArray[np.float64] | None = None  # (O, P)
    offered: pl.Series | None = None  # (O,)


def measures(reference: Side, current: Side, spec: Monitor) -> list[Measure]:
    """All comparisons of behaviour."""
    tests = [
        ("event mix", lambda: _event_mix(reference, current, spec)),
        ("activity", lambda: _activity(reference, current, spec)),
        ("popularity concentration", lambda: _concentration(reference, current, spec)),
        ("categories chosen", lambda: _categories(reference, current, spec)),
    ]
    shared = sorted(set(reference.vectors) & set(current.vectors))
    tests += [(f"taste ({m})", lambda m=m: _taste(m, reference, current, spec)) for m in shared]  # type: ignore[misc]
    out = []
    for name, test in tests:
        found = _too_few(reference, current)
        out.append(Measure(BEHAVIOUR, name, why=found) if found else test())
    return out


def _too_few(reference: Side, current: Side) -> str:
    for name, side in (("reference", reference), ("batch", current)):
        users = side.pairs[C.USER].n_unique()
        if side.pairs.height < MIN_PAIRS or users < 20:
            return f"the {name} has {side.pairs.height} positive pairs of {users} users, needed are {MIN_PAIRS} of 20"
    return ""


def draws(reference: _Sample, current: _Sample, spec: Monitor) -> NDArray[np.float64]:
    """(B, P) draws of the difference (current - reference) under the hypothesis of none."""
    rng = np.random.default_rng([spec.seed, 7])
    total = np.zeros((spec.draws, current.value.shape[0]), np.float32)
    ways = [((current.users, reference.users), (current.rows, -reference.rows))]
    if current.items is not None and reference.items is not None:
        names = [(s.items, s.offered) for s in (current, reference)]
        blocks = [(s.rows, s.offers) for s in (current, reference)]
        flat = [(c, sign * b) for (a, o), (x, y), sign in zip(names, blocks, (1, -1), strict=True)
                for c, b in ((a, x), (o, y)) if c is not None and b is not None]  # fmt: skip
        ways.append((tuple(c for c, _ in flat), tuple(b for _, b in flat)))  # type: ignore[arg-type]
    for clusters, parts in ways:
        n, places = codes(*clusters)
        sums = _grouped(np.concatenate(places), np.concatenate(parts), n).astype(np.float32)
        for start in range(0, n, 4096):
            block = sums[start : start + 4096]
            bits = np.unpackbits(np.frombuffer(rng.bytes(spec.draws * -(-len(block) // 8)), np.uint8))
            signs = bits.reshape(spec.draws, -1)[:, : len(block)].astype(np.float32)
            total += 2 * (signs @ block) - block.sum(axis=0)
    return total.astype(np.float64)


def _grouped(group: NDArray[Any], rows: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """(n, P) sums of the (N, P) rows by group."""
    which = sparse.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))), shape=(n, len(group)))
    return np.asarray(which @ rows)


def _p(found: float, null: NDArray[np.float64]) -> float:
    return float((1 + (null >= found).sum()) / (1 + len(null)))


def _largest(reference: _Sample, current: _Sample, spec: Monitor) -> tuple[float, NDArray[np.float64]]:
    """(p of the largest absolute difference in standard errors, (P,) differences)."""
    difference = current.value - reference.value
    null = draws(reference, current, spec)
    error = np.sqrt(np.mean(null**2, axis=0))
    error = np.where(error > 1e-12, error, np.inf)
    return _p(float(np.abs(difference / error).max()), np.abs(null / error).max(axis=1)), difference


def _event_mix(reference: Side, current: Side, spec: Monitor) -> Measure:
    kinds = sorted(set(reference.events[C.EVENT]) | set(current.events[C.EVENT]))
    if len(kinds) < 2:
        return Measure(BEHAVIOUR, "event mix", why="there is one kind of event")
    ref, cur = (_shares(s.events, C.EVENT, kinds) for s in (reference, current))
    p, _ = _largest(ref, cur, spec)
    effects = [abs(cohens_h(a, b)) for a, b in zip(ref.value, cur.value, strict=True)]
    k = int(np.argmax(effects))
    before, after = float(ref.value[k]), float(cur.value[k])
    said = words.of_share("behaviour", "event", kinds[k], before, after)
    shown = [f"{kinds[k]} {words.percent(x)}" for x in (before, after)]
    return _measure("event mix", p, effects[k], reference, current, said, *shown)


def _shares(frame: pl.DataFrame, column: str, kinds: Sequence[str]) -> _Sample:
    number = {k: n for n, k in enumerate(kinds)}
    one = np.zeros((frame.height, len(kinds)))
    one[np.arange(frame.height), [number[v] for v in frame[column].to_list()]] = 1
    share = one.mean(axis=0)
    return _Sample(share, (one - share) / len(one), frame[C.USER], frame[C.ITEM],
                   np.zeros((0, len(kinds))), frame[C.ITEM].clear())  # fmt: skip


def _activity(reference: Side, current: Side, spec: Monitor) -> Measure:
    """Events of a user on a day on which the user came: windows of any length compare."""
    by_day = all(C.TIME in s.events.columns for s in (reference, current))
    ref, cur = (_per_day(s.events, by_day) for s in (reference, current))
    name = "events per user and active day" if by_day else "events per user"
    spread = float(np.sqrt((ref[1].var() + cur[1].var()) / 2))
    if spread < 1e-9:
        return Measure(BEHAVIOUR, "activity", why=f"{name}: the same number for everybody")
    p, difference = _largest(ref[0], cur[0], spec)
    before, after = float(ref[0].value[0]), float(cur[0].value[0])
    way = "more" if after > before else "less"
    said = f"users do {way} in a visit: {name} {words.number(before)} -> {words.number(after)}"
    effect = abs(float(difference[0])) / spread
    return _measure("activity", p, effect, reference, current, said, words.number(before), words.number(after))


def _per_day(events: pl.DataFrame, by_day: bool) -> tuple[_Sample, NDArray[np.float64]]:
    day = [pl.col(C.TIME).dt.date()] if by_day else []
    # the random signs go to the users in their order here, and a group_by has another one at each call
    counts = events.group_by(C.USER, *day).len().sort(C.USER, *day)
    n = counts["len"].to_numpy().astype(np.float64)
    return _Sample(np.array([n.mean()]), ((n - n.mean()) / len(n))[:, None], counts[C.USER]), n


def _concentration(reference: Side, current: Side, spec: Monitor) -> Measure:
    """The coefficient of variation of the items' popularity, without the part that counting noise adds.

    S = I * sum n(n - 1) / (N(N - 1)) is how much more often two choices meet in one item than under equal popularity
    (Simpson 1949, "Measurement of diversity"), whatever N is; its root above 1 is the coefficient of variation.
    """
    ref, cur = _simpson(reference), _simpson(current)
    if ref is None or cur is None:
        return Measure(BEHAVIOUR, "popularity concentration", why="too few items were chosen, or all equally often")
    p, difference = _largest(ref, cur, spec)
    before, after = float(ref.value[0]), float(cur.value[0])
    way = "more" if after > before else "less"
    said = f"choices are {way} concentrated on few items: variation of popularity {before:.2f} -> {after:.2f}"
    return _measure("popularity concentration", p, abs(float(difference[0])), reference, current, said,
                    f"{before:.2f}", f"{after:.2f}")  # fmt: skip


def _simpson(side: Side) -> _Sample | None:
    pairs, ids = _on_offer(side)
    n_items, n = len(ids), pairs.height
    if n_items < 20 or n < MIN_PAIRS:
        return None
    _, (offer, chosen) = codes(ids, pairs[C.ITEM])
    counts = np.bincount(chosen, minlength=int(max(offer.max(), chosen.max())) + 1).astype(np.float64)
    s = n_items * float((counts * (counts - 1)).sum()) / (n * (n - 1))
    if s - 1 < 0.05**2:
        return None
    variation = np.sqrt(s - 1)
    relative = n_items * counts / n  # popularity, mean 1 over the items on offer
    scale = 1 / (2 * variation)
    rows = 2 * (relative[chosen] - s) / n * scale
    # As a mean over items, S depends on each item by (r^2 - S) - 2 S (r - 1); what its interactions carry is in rows.
    whole = ((relative[offer] ** 2 - s) - 2 * s * (relative[offer] - 1)) / n_items * scale
    carried = np.bincount(chosen, weights=rows, minlength=len(counts))[offer]
    return _Sample(np.array([variation]), rows[:, None], pairs[C.USER], pairs[C.ITEM], (whole - carried)[:, None], ids)


def _on_offer(side: Side) -> tuple[pl.DataFrame, pl.Series]:
    """The positive pairs of items that were on offer all the time, and the ids of those items."""
    ids = side.items.filter(offered(side))[C.ITEM]
    return side.pairs.filter(pl.col(C.ITEM).is_in(ids.implode())), ids


def _given_offer(side: Side, x: NDArray[np.float64], ids: pl.Series) -> _Sample:
    """Mean of ``x`` (O, P) over the choices minus its mean over the items on offer (``ids``)."""
    pairs = side.pairs.filter(pl.col(C.ITEM).is_in(ids.implode()))
    _, (offer, chosen) = codes(ids, pairs[C.ITEM])
    at = np.zeros(int(max(offer.max(initial=0), chosen.max(initial=0))) + 1, np.int64)
    at[offer] = np.arange(len(offer))
    centred = x - x.mean(axis=0)
    picked = centred[at[chosen]]
    value = picked.mean(axis=0) if len(picked) else np.zeros(x.shape[1])
    return _Sample(value, (picked - value) / max(len(picked), 1), pairs[C.USER], pairs[C.ITEM],
                   -centred / max(len(ids), 1), ids)  # fmt: skip


def _categories(reference: Side, current: Side, spec: Monitor) -> Measure:
    """The share of a category among choices against its share among what is on offer; categories of both sides only."""
    name = "categories chosen"
    if any(C.CATEGORY not in s.items.columns for s in (reference, current)):
        return Measure(BEHAVIOUR, name, why="the items have no category")
    here = [s.items.filter(offered(s)).select(C.ITEM, C.CATEGORY).drop_nulls() for s in (reference, current)]
    counts = [dict(h.group_by(C.CATEGORY).len().iter_rows()) for h in here]
    common = sorted(c for c in counts[0] if min(counts[0][c], counts[1].get(c, 0)) >= 5)
    if len(common) < 2:
        return Measure(BEHAVIOUR, name, why="fewer than two categories are common on both sides")
    samples, shares = [], []
    for side, table in zip((reference, current), here, strict=True):
        kept = table.filter(pl.col(C.CATEGORY).is_in(pl.Series(common).implode()))
        x = (kept[C.CATEGORY].to_numpy()[:, None] == np.array(common, object)[None]).astype(np.float64)
        samples.append(_given_offer(side, x, kept[C.ITEM]))
        shares.append(x.mean(axis=0))
    ref, cur = samples
    if min(len(ref.rows), len(cur.rows)) < MIN_PAIRS:
        return Measure(BEHAVIOUR, name, why=f"fewer than {MIN_PAIRS} choices of common categories")
    p, difference = _largest(ref, cur, spec)
    share = (shares[0] + shares[1]) / 2
    effects = np.abs(difference) / np.sqrt(share * (1 - share))
    k = int(np.argmax(effects))
    before, after = shares[0][k] + ref.value[k], shares[1][k] + cur.value[k]
    said = words.of_share("users choose other categories", "choices of", common[k], before, after)
    said += f", on offer {words.percent(shares[0][k])} -> {words.percent(shares[1][k])}"
    shown = words.printable(common[k], 40)
    return _measure(name, p, float(effects[k]), reference, current, said,
                    f"{shown} {words.percent(before)}", f"{shown} {words.percent(after)}")  # fmt: skip


def _taste(modality: str, reference: Side, current: Side, spec: Monitor) -> Measure:
    """How far the chosen items lie from those on offer, along the main axes of one modality's vectors, in standard
    deviations of the side's own offer: a distance between the two sides, corrected for its noise."""
    name = f"taste ({modality})"
    offers = []
    for side in (reference, current):
        vectors, present = side.vectors[modality]
        use = present & offered(side)
        offers.append((side, np.asarray(vectors[use], np.float32), side.items.filter(use)[C.ITEM]))
    if min(len(x) for _, x, _ in offers) < max(spec.min_rows, 2 * AXES):
        return Measure(BEHAVIOUR, name, why=f"fewer than {2 * AXES} items with {modality} on offer on one side")
    widths = [x.shape[1] for _, x, _ in offers]
    if widths[0] != widths[1]:
        return Measure(BEHAVIOUR, name, why=f"vectors of {widths[0]} and of {widths[1]} numbers do not compare")
    axes = _axes(offers[0][1])
    if axes is None:
        return Measure(BEHAVIOUR, name, why="all vectors of the reference are equal")
    samples = []
    for side, x, ids in offers:
        z = ((x - x.mean(axis=0)) @ axes).astype(np.float64)
        spread = z.std(axis=0)
        samples.append(_given_offer(side, z / np.where(spread > 1e-9, spread, 1.0), ids))
    ref, cur = samples
    if min(len(ref.rows), len(cur.rows)) < MIN_PAIRS:
        return Measure(BEHAVIOUR, name, why=f"fewer than {MIN_PAIRS} choices of items with {modality}")
    distance = float(((cur.value - ref.value) ** 2).sum())
    null = (draws(ref, cur, spec) ** 2).sum(axis=1)
    effect = float(np.sqrt(max(0.0, distance - float(null.mean()))))
    said = (
        f"users choose other items than before, given what is on offer: in {modality} their choices moved by "
        f"{effect:.2f} standard deviations"
    )
    lengths = [float(np.sqrt((s.value**2).sum())) for s in samples]
    return _measure(name, _p(distance, null), effect, reference, current, said,
                    f"{lengths[0]:.2f} from the offer", f"{lengths[1]:.2f} from the offer")  # fmt: skip


def _axes(x: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """(D, P) main axes of (O, D) vectors with some spread; None where there is none."""
    centred = x - x.mean(axis=0)
    if float(np.abs(centred).max(initial=0.0)) < 1e-9:
        return None
    from sklearn.utils.extmath import randomized_svd

    _, size, right = randomized_svd(centred[:2000], min(AXES, *centred.shape), random_state=0)
    return np.asarray(right[size > 1e-6 * size[0]].T)


def _measure(
    name: str, p: float, effect: float, reference: Side, current: Side, said: str, before: str, after: str
) -> Measure:
    return Measure(
        BEHAVIOUR, name, BEHAVIOUR, p, min(CAP, effect), METHOD, reference.pairs.height, current.pairs.height,
        before, after, said,
    )  # fmt: skip


def quarantined(table: str, reference: Side, current: Side, spec: Monitor) -> Measure:
    """The share of rows that ingest and gate set aside; rows of one user (or item) belong together."""
    name = f"{table} set aside"
    samples = []
    for side in (reference, current):
        frame = side.rows.get(table)
        if frame is None or frame.height < spec.min_rows:
            return Measure("data quality", name, why="the account of rows is missing or too short")
        aside, read = (frame[c].to_numpy().astype(np.float64) for c in ("aside", "read"))
        share = aside.sum() / read.sum()
        samples.append(_Sample(np.array([share]), ((aside - share * read) / read.sum())[:, None], frame["cluster"]))
    ref, cur = samples
    before, after = float(ref.value[0]), float(cur.value[0])
    if before == after:
        share, sizes = words.percent(before), (len(ref.rows), len(cur.rows))
        return Measure("data quality", name, "data quality", 1.0, 0.0, "cluster bootstrap", *sizes, share, share)
    p, _ = _largest(ref, cur, spec)
    way = "more" if after > before else "fewer"
    return Measure(
        "data quality", name, "data quality", p, min(CAP, abs(cohens_h(before, after))), "cluster bootstrap",
        len(ref.rows), len(cur.rows), words.percent(before), words.percent(after),
        f"{way} rows of {table} are set aside: {words.percent(before)} -> {words.percent(after)}",
    )  # fmt: skip
