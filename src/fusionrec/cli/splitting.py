"""What `fusionrec splits` does: the project's own models under three split protocols. Writes nothing in data/."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionrec.cli.root import out_file
from fusionrec.errors import ConfigError, DataRejected

if TYPE_CHECKING:
    from fusionrec.config import Params
    from fusionrec.paths import Paths


def run(params: Params, paths: Paths, out: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Raises ConfigError without timestamps, before the stages split and embed have run, and where a model cannot be
    fitted; DataRejected where embeddings and tables differ; UsageError for ``out``."""
    from fusionrec.data import tables
    from fusionrec.data.files import write_json
    from fusionrec.data.positives import positive_pairs
    from fusionrec.embeddings import base as embeddings
    from fusionrec.evaluation.table import MAIN
    from fusionrec.studies import splits
    from fusionrec.types import Columns as C
    from fusionrec.types import ItemSet

    out_file(out)
    if not (paths.splits / "items.parquet").is_file():
        raise ConfigError("data/splits is missing: run `fusionrec repro` (or the stages up to embed) first")
    log = tables.accepted(paths, "interactions")
    pairs = positive_pairs(log, params.positives.events)
    specs = splits.protocols(pairs, params.split, params.train.seed)
    first = log[C.TIME].min() if C.TIME in log.columns else None
    ids = tuple(splits.split.item_order(tables.accepted(paths, "items")[C.ITEM].to_list()))
    items = embeddings.load(paths, tuple(params.modalities)) if params.modalities else ItemSet(ids)
    if items.ids != ids:
        raise DataRejected("the embeddings and the tables speak of different items: run `fusionrec repro`")
    train, how = params.train, params.evaluate
    models = {spec.kind: (spec, train.fusion) for spec in train.baselines} | {MAIN: (train.retriever, train.fusion)}
    found = splits.side_by_side(
        pairs,
        items,
        models,
        specs,
        core=params.positives.k_core,
        first_day=first.date() if isinstance(first, datetime) else None,
        ks=how.k,
        metric=f"{how.main_metric}@{how.main_k}",
        history=tuple(how.history.split("+")),
        repeats=how.bootstrap,
        seed=train.seed,
        say=say,
    )
    if out is not None:
        write_json(out, found)
    return found
