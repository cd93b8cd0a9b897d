"""The same models under three split protocols, side by side: random per user, leave last out, global time.

Each model is trained anew for each protocol, chosen and stopped on that protocol's validation, and ranked over all
items for that protocol's test users. The test sets differ (other users, other choices), so numbers of two protocols are
not paired and no test compares them; within a protocol models are. Global time is what a service meets: nothing that is
trained on happened after the first choice that is asked for (Meng et al., RecSys 2020; Ji et al., "A critical study on
data leakage in recommender system offline evaluation", TOIS 2023, arXiv:2010.11060).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl

from fusionrec.data import split
from fusionrec.data.split import GlobalTime, LeaveLastOut, RandomPerUser, SplitData
from fusionrec.errors import ConfigError
from fusionrec.evaluation import comparisons, slices, table
from fusionrec.evaluation.protocol import evaluate
from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec
from fusionrec.types import Bool, ItemSet, Spec
from fusionrec.types import Columns as C

NAMES = {"random_per_user": "random", "leave_last_out": "leave last out", "global_time": "global time"}
"""The protocols by kind, from the most flattering to the most honest, and what people read."""

SHARES = (0.8, 0.9)
"""Where global time cuts if the project does not say: 8:1:1 of the pairs, as the random split."""


def protocols(pairs: pl.DataFrame, own: Spec | None = None, seed: int = 0) -> dict[str, Any]:
    """kind -> split spec. ``own``: the project's split; its cut-offs are used if it is a global one.

    Raises ConfigError where the pairs have no timestamps.
    """
    if pairs[C.TIME].null_count():
        raise ConfigError("splits side by side need timestamps, and this log has none")
    cuts = own if isinstance(own, GlobalTime) else GlobalTime(**dict(zip(("valid_from", "test_from"), _cuts(pairs))))
    return dict(zip(NAMES, (RandomPerUser(seed=seed), LeaveLastOut(seed=seed), cuts)))


def _cuts(pairs: pl.DataFrame) -> list[datetime]:
    """The moments before which 80 % and 90 % of the pairs lie."""
    moments = np.sort(pairs[C.TIME].dt.epoch("us").to_numpy())
    at = [int(moments[min(int(share * len(moments)), len(moments) - 1)]) for share in SHARES]
    if at[0] >= at[1]:
        raise ConfigError("a global-time split is impossible: a tenth of all pairs have one and the same timestamp")
    return [datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000) for us in at]


def side_by_side(
    pairs: pl.DataFrame,
    items: ItemSet,
    models: Mapping[str, tuple[RetrieverSpec, FusionSpec | None]],
    specs: Mapping[str, Any],
    *,
    core: int = 0,
    first_day: date | None = None,
    ks: Iterable[int] = (10, 20),
    metric: str = "ndcg@20",
    history: Sequence[str] = ("train", "valid"),
    repeats: int = 2000,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train and test every model under every protocol.

    ``pairs``: positive pairs with timestamps (:func:`fusionrec.data.positives.positive_pairs`); ``items``: the whole
    catalogue in canonical order; ``models``: label -> retriever and the fusion it trains through; the entry
    :data:`fusionrec.evaluation.table.MAIN` is the one that the others are tested against. ``specs`` as
    :func:`protocols` gives them. -> what benchmarks/results/splits.json holds for one catalogue.

    Raises ConfigError where a model cannot be fitted to a protocol's training pairs.
    """
    if table.MAIN not in models:
        raise ValueError(f"one model must be called {table.MAIN!r}, found {', '.join(models)}")
    frame = pl.DataFrame({C.ITEM: list(items.ids)}, schema={C.ITEM: pl.String})
    found = []
    for kind, spec in specs.items():
        made = split.make(spec, frame, pairs, core, first_day)
        data = SplitData(tuple(made.items), tuple(split.ordered_users(made.parts["train"])), made.parts)
        asked = split.requests(data, "test", history)
        touched = np.bincount(data.train.item, minlength=len(items)) > 0
        parts = [p for p in slices.build(asked.requests, asked.positives, ~touched, {}) if p.name in ("all", "warm")]
        results = {}
        for name, (retriever, fusion) in models.items():
            start, model = time.monotonic(), _fitted(retriever, fusion, data, items, seed, NAMES.get(kind, kind))
            results[name] = evaluate(model, asked.requests, parts, ks, name=name)
            mean, seconds = results[name].mean("all", metric)[0], time.monotonic() - start
            say(f"{NAMES.get(kind, kind)}: {name} {metric} {mean:.4f} ({seconds:.0f} s)")
        labels = {name: table.label(name, models[name][0].kind, items.modalities) for name in models}
        tests = comparisons.against_others(results, labels, metric, repeats, seed)
        found.append(
            {
                "kind": kind,
                "name": NAMES.get(kind, kind),
                **_sizes(made, asked, touched),
                "table": table.long_rows(list(results.values()), labels, repeats, seed),
                "comparisons": tests,
                "standing": comparisons.standing(tests),
            }
        )
    return {"metric": metric, "splits": found, "means": sentences(found, metric)}


def _fitted(
    retriever: RetrieverSpec, fusion: FusionSpec | None, data: SplitData, items: ItemSet, seed: int, name: str
) -> Retriever:
    """A model trained under the protocol called ``name``. Raises ConfigError where it cannot be."""
    model = retriever.build(fusion)
    try:
        model.fit(data.train, data.valid, items, seed=seed)
    except ValueError as error:
        raise ConfigError(f"{retriever.kind}, {name} split: {error}") from error
    return model


def _sizes(made: split.Splits, asked: split.Asked, touched: Bool) -> dict[str, Any]:
    """What a protocol asks, and of whom and what training knows nothing. ``touched`` (I,): items of its train."""
    return {
        "pairs": {name: part.height for name, part in made.parts.items()},
        "windows": made.summary["windows"],
        "users": len(asked.users),
        "unknown_users": int((asked.requests.user < 0).sum()),
        "cold_pairs": int((~touched)[asked.positives.indices].sum()),
    }


def rows_for_people(found: Mapping[str, Any], part: str = "all") -> list[dict[str, str]]:
    """One row a model and one column a protocol: mean, interval, and who is first, tied or beaten."""
    metric = found["metric"]
    labels = {r["model"]: r["label"] for one in found["splits"] for r in one["table"]}
    out = []
    for model in table.order(labels):
        row = {"model": labels[model]}
        for one in found["splits"]:
            cells = {(r["model"], r["slice"], r["metric"]): r for r in one["table"]}
            word = table.verdicts(one).get(model) if part == "all" else None
            row[one["name"]] = table.cell(cells.get((model, part, metric))) + (f", {word}" if word else "")
        out.append(row)
    return out


def sentences(splits: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """What the differences mean, from the numbers."""
    rows = [[r for r in one["table"] if (r["slice"], r["metric"]) == ("all", metric)] for one in splits]
    names = [one["name"] for one in splits]
    main = [next(r["mean"] or 0.0 for r in found if r["model"] == table.MAIN) for found in rows]
    scores = ", ".join(f"{name} {mean:.4f}" for name, mean in zip(names, main))
    out = [f"The same model reaches {metric} of {scores}."]
    if main[0] > 0:
        out.append(f"{names[-1].capitalize()} gives {main[-1] / main[0]:.2f} times the score of {names[0]}.")
    out.append(
        "A random split trains on choices made after those it asks for; leave last out still trains on the later "
        "choices of other users; global time trains on nothing later than its first test choice, as a service must."
    )
    last = splits[-1]
    if last["pairs"]["test"]:
        out.append(
            f"Under {names[-1]} {last['cold_pairs'] / last['pairs']['test']:.0%} of the test choices are of items that "
            f"nobody had touched, and {last['unknown_users'] / last['users']:.0%} of the test users are unknown."
        )
    orders = [
        " > ".join(r["label"] for r in sorted(found, key=lambda r: (-(r["mean"] or 0), r["label"]))) for found in rows
    ]
    if len(set(orders)) == 1:
        return [*out, f"Every protocol puts the models in the same order: {orders[0]}."]
    told = "; ".join(f"{name}: {order}" for name, order in zip(names, orders))
    return [*out, f"The order of the models depends on the protocol ({told})."]
