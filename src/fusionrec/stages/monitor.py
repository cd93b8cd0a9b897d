"""monitor: compare a batch (an ordinary catalogue folder) with what the project was built on.

Not a DVC stage: it writes to the private state alone. The batch is ingested beside the project's own tables with the
same mapping and the same pseudonym key, goes through the same gate, and is embedded through the same store.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from fusionrec.config import Params
from fusionrec.data import gate, media, split, tables
from fusionrec.data import verdict as verdicts
from fusionrec.data.files import fresh_folder, write_bytes, write_json
from fusionrec.data.ingest import canonical
from fusionrec.data.positives import positive_pairs
from fusionrec.data.rules import Rules
from fusionrec.embeddings import base as embeddings
from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import EncoderSpec
from fusionrec.errors import ConfigError, DataRejected, FusionrecError, IntegrityError, UsageError
from fusionrec.evaluation.pictures import thumbnail
from fusionrec.modalities.base import Modality, ModalityRows
from fusionrec.monitoring import descriptors, drift, predictions, report
from fusionrec.monitoring.compare import Comparison, compare
from fusionrec.monitoring.sides import Side, capped_users, quarantined
from fusionrec.monitoring.verdict import Measure, Verdict, judge
from fusionrec.paths import Paths
from fusionrec.privacy import pseudonyms
from fusionrec.registry.model import LoadedModel, load_model
from fusionrec.stages.lock import default_wait, folder_lock
from fusionrec.stages.progress import counted
from fusionrec.types import Columns as C
from fusionrec.types import ItemSet, Report, item_order

EVENTS = (C.USER, C.ITEM, C.EVENT, C.TIME)
PICTURES = 8


@dataclass(frozen=True)
class _Tables:
    """One side before it is described: the item table before and after the gate (same rows, canonical order)."""

    written: pl.DataFrame
    items: pl.DataFrame
    log: pl.DataFrame
    quarantine: pl.DataFrame
    root: Path


@dataclass
class _Read:
    """What a side became: ``side`` for the comparisons, ``vectors`` for the model."""

    side: Side
    vectors: ItemSet
    lacking: dict[str, str] = field(default_factory=dict)


def run(params: Params, paths: Paths, batch: Path) -> Report:
    """Compare the catalogue folder ``batch`` with the project; writes ``.fusionrec/monitor/<UTC time>-<digest>/``.

    ``counts["drift"]`` of the report is 1 on drift; nothing is raised for it. What cannot be computed is said and never
    an error, a missing reference included. Raises UsageError where ``batch`` is no folder and DataRejected where it
    breaks a hard rule of the gate.
    """
    with folder_lock(paths.home, Path(batch).expanduser(), "a drift check", default_wait()):
        return _run(params, paths, batch)


def _run(params: Params, paths: Paths, batch: Path) -> Report:
    clock = _Clock()
    found, digest = _ingest(params, paths, batch)
    clock.lap("ingest")
    more: list[Measure] = []
    try:
        reference = _reference(params, paths, clock)
    except (DataRejected, IntegrityError) as error:
        why = str(error).splitlines()[0]
        comparison = Comparison(judge([Measure("reference", "tables", why=why)], params.monitor.alpha, 0.0), ())
        sides: tuple[_Read, ...] = ()
    else:
        current = _described(params, paths, found, lambda m, s, r: _embedded(params, paths, m, s, r), found.log)
        clock.lap("embed and describe the batch")
        more = _predictions(params, paths, reference, current)
        clock.lap("predictions")
        comparison = compare(reference.side, current.side, params.monitor, more)
        clock.lap("compare")
        sides = (reference, current)
    links = _write(params, paths, comparison, sides, found, digest)
    clock.lap("write")
    return _report(comparison.verdict, links, clock.seconds, found)


class _Clock:
    def __init__(self) -> None:
        self.last, self.seconds = time.monotonic(), dict[str, float]()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now


def _ingest(params: Params, paths: Paths, batch: Path) -> tuple[_Tables, str]:
    """Ingest and gate the batch into ``.fusionrec/batches/<digest>``; its digest."""
    folder = Path(batch).expanduser().resolve()
    if not folder.is_dir():
        raise UsageError(f"{batch} is not a folder; expected one with items and interactions, as source.root is")
    raw = params.source.model_copy(update={"root": str(folder)}).build(paths.project).read()
    with counted("look at media") as progress, media.memory(paths, raw.media_root, progress) as memory:
        result = canonical(raw, pseudonyms.key(paths), memory.look)
    hashed = [f"{t} {tables.content_hash(frame)}" for t, frame in sorted(result.frames.items())]
    digest = hashlib.sha256("\n".join([*hashed, tables.content_hash(result.quarantine)]).encode()).hexdigest()
    private = Paths(paths.home / "batches" / digest[:16], paths.home)
    tables.write(private, result)
    rules = Rules(**params.gate.model_dump())
    verdict = gate.judge(result.frames, result.ledger, result.quarantine, rules, paths.home / "gate")
    verdicts.write(private.gate, verdict)
    _keep(paths.home / "batches", digest[:16], params.monitor.keep)
    where = f"{paths.home.name}/batches/{digest[:16]}/data/gate/"
    verdicts.require(verdict, f"{where}quarantine.csv and {where}docs/index.html")
    return _loaded(private, raw.media_root, params.monitor.max_items), digest


def _keep(folder: Path, name: str, most: int) -> None:
    """Batches hold people's interactions, if under pseudonyms: ``name``, which is at work, and the ``most - 1`` that
    were checked last stay."""
    os.utime(folder / name)  # a batch that is checked again is written inside, which its own time does not tell
    others = (f for f in folder.iterdir() if f.is_dir() and f.name != name)  # whatever the clock says of it
    for old in sorted(others, key=lambda f: f.stat().st_mtime, reverse=True)[most - 1 :]:
        shutil.rmtree(old, ignore_errors=True)


def _loaded(paths: Paths, root: Path, most: int) -> _Tables:
    """The tables of a project or batch; at most ``most`` items, the first in canonical order, which is by hash."""
    accepted = tables.accepted(paths, "items")
    ids = pl.DataFrame({C.ITEM: item_order(accepted[C.ITEM].to_list())[:most]}, schema={C.ITEM: pl.String})
    items, written = (
        ids.join(frame, on=C.ITEM, how="left", maintain_order="left")
        for frame in (accepted, tables.read(paths, "items"))
    )
    return _Tables(written, items, tables.accepted(paths, "interactions"), tables.quarantined(paths), root)


def _reference(params: Params, paths: Paths, clock: _Clock) -> _Read:
    """The project's accepted items and its train window. Raises DataRejected where nothing was ingested."""
    found = _loaded(paths, params.source.media_root(paths.project), params.monitor.max_items)
    log = found.log
    try:
        summary = split.summary(paths)
        if summary["windows"] and C.TIME in log.columns:  # a split in time; the others train on all days
            log = log.filter(pl.col(C.TIME) <= datetime.fromisoformat(summary["train"]["last"].replace("Z", "+00:00")))
    except (OSError, ValueError, KeyError):
        raise DataRejected("data/splits is missing: run the stage split first") from None
    out = _described(params, paths, found, lambda m, s, r: _stored(params, paths, m), log)
    clock.lap("describe the reference")
    return out


Vectors = Callable[[str, Modality, ModalityRows], tuple[Any, Any, Any]]


def _described(params: Params, paths: Paths, found: _Tables, vectors: Vectors, log: pl.DataFrame) -> _Read:
    """Descriptors and vectors of one side; a modality that cannot be read is named in ``lacking``."""
    store, columns, lacking = Store(paths.home / "descriptors"), descriptors.attributes(found.items), dict[str, str]()
    features, present, group, seen = {}, {}, {}, {}
    for name, spec in sorted(params.modalities.items()):
        source = spec.build()
        try:
            rows = source.rows(found.items, found.root)
            seen[name] = rows.present
            with counted(f"describe {name}") as progress:
                columns += descriptors.of_modality(name, spec, source, rows, found.items, store, progress)
            features[name], present[name], group[name] = vectors(name, source, rows)
        except FusionrecError as error:
            lacking[name] = str(error).splitlines()[0]
    columns += descriptors.presence(found.written, found.items, seen)
    n = len(found.items)
    log = capped_users(log.select([c for c in EVENTS if c in log.columns]), params.monitor.max_events)
    side = Side(
        items=found.items,
        columns=tuple(columns),
        vectors={m: (x[:n], present[m][:n]) for m, x in features.items()},
        reads={m: str(spec.encoder.accepts) for m, spec in params.modalities.items()},
        events=log,
        pairs=positive_pairs(log, params.positives.events),
        rows=quarantined(found.quarantine, {"items": found.items, "interactions": found.log}),
        lacking=lacking,
    )
    cut = {m: g[:n] for m, g in group.items()}
    ids = tuple(found.items[C.ITEM].to_list())
    return _Read(
        side, ItemSet(ids, {m: v[0] for m, v in side.vectors.items()}, {m: v[1] for m, v in side.vectors.items()}, cut)
    )


def _stored(params: Params, paths: Paths, modality: str) -> tuple[Any, Any, Any]:
    """The reference's vectors as the stage embed wrote them. Raises IntegrityError where they are missing or those of
    another encoder."""
    manifest = embeddings.read_manifest(paths, modality)
    if not embeddings.is_of(manifest, _encoder(params, paths, modality)):
        raise IntegrityError(f"data/embeddings/{modality} is of another encoder than params.yaml: run embed@{modality}")
    items = embeddings.load(paths, (modality,))
    return items.features[modality], items.present[modality], items.group[modality]


def _embedded(
    params: Params, paths: Paths, modality: str, source: Modality, rows: ModalityRows
) -> tuple[Any, Any, Any]:
    """The batch's vectors, through the store."""
    if not rows.present.any():
        raise DataRejected("no item of the batch has it")
    with counted(f"embed {modality}") as progress:
        done = embed(source, rows, _encoder(params, paths, modality), Store(paths.store), progress=progress)
    if not done.present.any():
        raise DataRejected("not one item of the batch could be read")
    return done.vectors, done.present, rows.group


def _encoder(params: Params, paths: Paths, modality: str) -> EncoderSpec:
    """The encoder as the stage embed uses it, with what was learnt here."""
    encoder: EncoderSpec = params.modalities[modality].encoder.bound(paths.encoders / modality)
    return encoder


def _predictions(params: Params, paths: Paths, reference: _Read, current: _Read) -> list[Measure]:
    """What the project's model makes of both sides."""
    model: LoadedModel | None = None
    why = ""
    held = trained = reference.side.pairs.clear()
    try:
        model = load_model(paths.model)
        data = split.load(paths, ("train", "valid", "test"))
        trained = data.frames["train"]
        held = pl.concat([data.frames["valid"], data.frames["test"]]).unique([C.USER, C.ITEM], maintain_order=True)
        for name in model.modalities:
            recorded = model.manifest["modalities"][name]
            if name not in params.modalities or not embeddings.is_of(recorded, _encoder(params, paths, name)):
                why = f"the model was trained with another encoder of {name}: run the stage train"
    except (DataRejected, IntegrityError, ConfigError, OSError) as error:
        why = str(error).splitlines()[0]
    sides = predictions.Asked(held, reference.vectors), predictions.Asked(current.side.pairs, current.vectors)
    return predictions.measures(model, why, *sides, trained, params.monitor)


def _write(
    params: Params, paths: Paths, found: Comparison, sides: tuple[_Read, ...], batch: _Tables, digest: str
) -> dict[str, str]:
    """The folder of this run; -> links relative to the project's home."""
    when, verdict = datetime.now(UTC), found.verdict
    folder = paths.home / "monitor" / f"{when:%Y%m%dT%H%M%SZ}-{digest[:12]}"
    links = {"report": "report.html", "verdict": "verdict.json"}
    facts = _facts(sides, batch, digest, when)
    with fresh_folder(folder) as building:
        if any(not p.why for p in found.pairs):
            (building / "evidently").mkdir()
            name = f"{batch.root.name} {when:%Y-%m-%d %H:%M:%S}"
            page, ui = drift.pages(
                building / "evidently",
                paths.home / "evidently",
                found.pairs,
                verdict,
                name,
                when,
                {"batch": digest[:16]},
            )
            links["descriptors"] = f"evidently/{page.name}"
        page_bytes = report.render(
            report.Page(
                found,
                facts,
                params.monitor.min_effect,
                params.monitor.alpha,
                _pictures(params, paths, found, sides, batch),
            )
        )
        write_bytes(building / "report.html", page_bytes)
        write_json(
            building / "verdict.json", {"format_version": 1, "batch": digest, **verdict.as_dict(), "facts": facts}
        )
    out = {name: f"{paths.home.name}/monitor/{folder.name}/{file}" for name, file in links.items()}
    return out | ({"evidently": _in_evidently(ui)} if "descriptors" in links else {})


def _in_evidently(page: str) -> str:
    """The address of a page of Evidently's server: the running ``up`` names it, else it is where ``up`` starts it."""
    port = os.environ.get("FUSIONREC_EVIDENTLY_PORT", "8000")
    return os.environ.get("FUSIONREC_EVIDENTLY_URL", f"http://127.0.0.1:{port}") + page


def _facts(sides: tuple[_Read, ...], batch: _Tables, digest: str, when: datetime) -> dict[str, str]:
    facts = {"batch": f"{batch.root.name} ({digest[:12]})", "when": f"{when:%Y-%m-%d %H:%M} UTC"}
    for name, read in zip(("reference", "batch"), sides, strict=False):
        side = read.side
        text = f"{side.items.height:,} items, {side.events.height:,} events of {side.events[C.USER].n_unique():,} users"
        days: Any = side.events[C.TIME].drop_nulls().dt.strftime("%Y-%m-%d") if C.TIME in side.events.columns else []
        text += f", {min(days)} to {max(days)}" if len(days) else ""
        facts["contents" if name == "batch" else name] = text
    return facts


def _pictures(
    params: Params, paths: Paths, found: Comparison, sides: tuple[_Read, ...], batch: _Tables
) -> tuple[list[str], list[str]]:
    """A few pictures of both sides where a modality that reads pictures alarmed."""
    blamed = {m.blames for m in found.verdict.measures if m.alarm}
    drawn = {name for name, spec in params.modalities.items() if spec.encoder.accepts == "image"}
    if len(sides) < 2 or not blamed & drawn:
        return [], []
    roots = (params.source.media_root(paths.project), batch.root)
    return tuple(_thumbnails(read.side.items, root) for read, root in zip(sides, roots, strict=True))  # type: ignore[return-value]


def _thumbnails(items: pl.DataFrame, root: Path) -> list[str]:
    found: list[str] = []
    for files in items["image_paths"].drop_nulls().to_list() if "image_paths" in items.columns else []:
        uri = thumbnail(root, files)
        found += [uri] if uri else []
        if len(found) == PICTURES:
            break
    return found


def _report(verdict: Verdict, links: dict[str, str], seconds: dict[str, float], batch: _Tables) -> Report:
    alarms = [m for m in verdict.measures if m.alarm]
    rows = [
        {"part": m.part, "what": m.name, "before": m.before, "after": m.after, "effect": round(m.effect or 0.0, 2),
         "p": f"{m.p:.2g}", "drift": "yes" if m.alarm else ""}
        for m in sorted((m for m in verdict.measures if m.computed), key=lambda m: (not m.alarm, -(m.effect or 0.0)))
    ]  # fmt: skip
    counts = {
        "drift": int(verdict.status == "drift"),
        "alarms": len(alarms),
        "computed": len(rows),
        "not_computable": len(verdict.not_computable),
        "items": batch.items.height,
        "events": batch.log.height,
    }
    notes = [verdict.sentence, *verdict.reasons[1:], *(f"not computable: {line}" for line in verdict.not_computable)]
    return Report("monitor", dict(counts), seconds, links, rows, notes)
