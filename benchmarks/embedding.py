"""How much of what the encoders could do the embedding engine leaves: files in, vectors in the store.

    python benchmarks/embedding.py [--only text image audio video incremental noop memory] [--items 400: quick, printed]

Side by side in one run, in turns: the engine; a plain loop (load one, encode one); for texts sentence-transformers'
`encode` with the same weights; and the ceiling, the network alone on the engine's own batches, which lie ready, in the
same precision, in the faster of two ways: one batch a thread, or all threads on one batch. Loading the weights is
counted nowhere.

Texts and pictures are those of FUSIONREC_ML1M (film descriptions, posters as JPEG) where it is set, else the demo's;
sounds (WAV) and clips (MP4) are the demo's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import TypeAdapter
from workspace import RESULTS, about, make, run, write

from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.shards import cut, loaded
from fusionrec.embeddings.store import Store
from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.base import Encoder, EncoderSpec
from fusionrec.encoders.forward import each, supported
from fusionrec.media.base import MediaError
from fusionrec.modalities import AnyModality
from fusionrec.modalities.base import Modality, ModalityRows

RUNS = 3
CASES = ("text", "image", "audio", "video", "incremental", "noop", "memory")
TARGETS = {"text-bf16": 0.9, "text-fp32": 0.9, "image": 0.85, "audio": 0.8, "video": 0.8}
COMMAND = "python benchmarks/embedding.py"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "embedding.md"
BEGIN, END = "<!-- table: python benchmarks/embedding.py --table -->\n", "<!-- /table -->\n"
MOST = {"text": 2000, "image": 1500, "audio": 300, "video": 60}  # contents of a turn
MINILM = {"kind": "minilm"}


class Ready(EncoderSpec):
    """An encoder whose weights lie in memory already, so that a run does not load them."""

    kind: Any = "ready"
    of: Any
    made: Any

    def fingerprint(self) -> str:
        return str(self.of.fingerprint())

    def build(self) -> Encoder:
        return self.made


class Source:
    """A modality over some items, and the encoder in memory."""

    def __init__(self, section: dict[str, Any], items: pl.DataFrame, root: Path, most: int) -> None:
        spec = TypeAdapter(AnyModality).validate_python(section)
        self.modality: Modality = spec.build()
        self.items, self.root = items, root
        rows = self.modality.rows(items, root)
        self.items = items[np.flatnonzero(rows.present)[:most].tolist()]
        self.rows: ModalityRows = self.modality.rows(self.items, root)
        self.spec = Ready(of=spec.encoder, made=spec.encoder.build())
        self.contents = len(set(self.rows.content))

    def engine(self) -> float:
        """Contents a second, from the table's rows to a matrix in memory, with an empty store on the disk."""
        with tempfile.TemporaryDirectory(prefix="fusionrec-store-") as place:
            start = time.perf_counter()
            rows = self.modality.rows(self.items, self.root)
            done = embed(self.modality, rows, self.spec, Store(Path(place)))
            seconds = time.perf_counter() - start
        if done.encoded != self.contents or done.failed:
            raise RuntimeError(f"{done.encoded} of {self.contents} were encoded: {dict(list(done.failed.items())[:3])}")
        return self.contents / seconds

    def loop(self) -> float:
        """One content after the other."""
        chosen = self.first()[:200]
        start = time.perf_counter()
        for _, row in chosen:
            self.spec.made.encode([self.modality.load(row)])
        return len(chosen) / (time.perf_counter() - start)

    def first(self) -> list[tuple[str, int]]:
        found: dict[str, int] = {}
        for row, content in enumerate(self.rows.content):
            found.setdefault(content, row)
        return sorted(found.items())

    def inputs(self) -> list[Any]:
        values = [value for _, value in loaded(self.modality, self.first())]
        if any(isinstance(value, MediaError) for value in values):
            raise RuntimeError("some files do not decode")
        return values


def network_alone(source: Source) -> Callable[[], float]:
    """The ceiling: the tensors that the encoder hands to its network are kept, and the network alone runs on them."""
    import torch

    made = source.spec.made
    encoder = getattr(made, "image", made)  # frames: the encoder of pictures inside
    values = source.inputs()
    forward = encoder.forward
    kept: list[tuple[Any, ...]] = []

    class Keeping(type(forward)):  # type: ignore[misc]
        def __call__(self, *inputs: Any) -> Any:
            kept.append(inputs)
            return super().__call__(*inputs)

    forward.__class__ = Keeping
    at = 0
    for shard in cut(dict(source.first())):
        for start in range(0, len(shard), made.chunk):
            made.encode(values[at + start : at + min(start + made.chunk, len(shard))])
        at += len(shard)
    forward.__class__ = Keeping.__bases__[0]
    free = forward._replicas()
    device, model = free.get()
    free.put((device, model))

    def apart() -> None:
        each(lambda inputs: forward(*inputs), kept)

    def together() -> None:
        from fusionrec.encoders.forward import autocast

        with torch.inference_mode(), autocast(forward.kind, forward.precision):
            for inputs in kept:
                forward.compute(model, *inputs)

    return lambda: max(source.contents / seconds(apart), source.contents / seconds(together))


def encoder_alone(source: Source) -> Callable[[], float]:
    """The ceiling of an encoder that is no torch network: all of it, on decoded inputs in memory."""
    values = source.inputs()
    return lambda: len(values) / seconds(lambda: source.spec.made.encode(values))


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sentence_transformers(texts: list[str]) -> Callable[[], float]:
    """Its `encode` as it comes, on the same weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    from fusionrec.encoders.minilm import WEIGHTS

    folder = next(iter(WEIGHTS.verified().values())).parent
    word = modules.Transformer(str(folder), max_seq_length=256)
    model = SentenceTransformer(modules=[word, modules.Pooling(word.get_embedding_dimension()), modules.Normalize()])
    model.to("cpu")
    return lambda: len(texts) / seconds(lambda: model.encode(texts, show_progress_bar=False))


def compared(case: str, source: Source, bound: Callable[[], float], peer: Callable[[], float] | None = None) -> Any:
    """One row: the medians of :data:`RUNS` turns, after one that warms up."""
    ways: dict[str, Callable[[], float]] = {"ours": source.engine, "bound": bound, "loop": source.loop}
    if peer:
        ways["peer"] = peer
    turns: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(RUNS + 1):
        for name, way in ways.items():
            rate = way()
            if turn:
                turns[name].append(rate)
    found = {name: statistics.median(rates) for name, rates in turns.items()}
    row = {
        "case": case, "unit": "items/s", "items": source.contents, "encoder": source.spec.of.model_dump(mode="json"),
        "ours": found["ours"], "bound": found["bound"], "ratio_bound": found["ours"] / found["bound"],
        "loop": found["loop"], "ratio_loop": found["ours"] / found["loop"],
        "peer": found.get("peer"), "peer_name": "sentence-transformers encode, fp32" if peer else None,
        "ratio_peer": found["ours"] / found["peer"] if peer else None, "target_bound": TARGETS.get(case),
    }  # fmt: skip
    row = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
    print(json.dumps(row), flush=True)
    return row


def films() -> tuple[pl.DataFrame, Path] | None:
    """The film catalogue as the pipeline's item table has it; None where FUSIONREC_ML1M names none."""
    import hashlib

    place = os.environ.get("FUSIONREC_ML1M")
    if not place:
        return None
    root = Path(place)
    items = pl.read_csv(root / "items.csv", infer_schema_length=0).select("item_id", "title", "description")
    paths = [[f"images/{i}.jpg"] if (root / f"images/{i}.jpg").is_file() else [] for i in items["item_id"]]
    digests = [[hashlib.sha256((root / p).read_bytes()).hexdigest() for p in some] for some in paths]
    texts = pl.Series("image_paths", paths, pl.List(pl.String)), pl.Series("image_sha256", digests, pl.List(pl.String))
    return items.with_columns(*texts), root


def demo(place: Path) -> tuple[pl.DataFrame, Path]:
    """The demo's item table after ingest and validate."""
    from fusionrec.data import tables
    from fusionrec.paths import Paths

    folder = place / "project"
    environment = make(folder, place / "home")
    run(folder, environment, "fusionrec", "demo-data")
    run(folder, environment, "dvc", "repro", "validate")
    return tables.accepted(Paths(folder, place / "home"), "items"), folder / "data" / "raw" / "atelier"


def speeds(cases: list[str], most: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="fusionrec-embedding-") as place:
        shown = demo(Path(place))
        items, root = films() or shown
        field = "description"
        if "text" in cases:
            for precision in ["fp32"] + ["bf16"] * supported("bf16"):
                section = {"kind": "text", "fields": [field], "encoder": {**MINILM, "precision": precision}}
                source = Source(section, items, root, min(most, MOST["text"]))
                peer = sentence_transformers([source.modality.load(row) for _, row in source.first()])
                rows.append(compared(f"text-{precision}", source, network_alone(source), peer))
        if "image" in cases:
            source = Source({"kind": "image"}, items, root, min(most, MOST["image"]))
            rows.append(compared("image", source, network_alone(source)))
        items, root = shown
        if "audio" in cases:
            source = Source({"kind": "audio"}, items, root, min(most, MOST["audio"]))
            rows.append(compared("audio", source, encoder_alone(source)))
        if "video" in cases:
            source = Source({"kind": "video", "encoder": {"kind": "frames"}}, items, root, min(most, MOST["video"]))
            rows.append(compared("video", source, network_alone(source)))
            source = Source({"kind": "video"}, items, root, most)
            rows.append(compared("video-motion", source, encoder_alone(source)))
    return rows


def incremental(most: int) -> dict[str, Any]:
    """A full run, then the same catalogue with 1 % more, both beyond start-up."""
    found = films()
    if found is None:
        raise SystemExit("incremental: set FUSIONREC_ML1M")
    source = Source({"kind": "text", "fields": ["description"], "encoder": MINILM}, *found, most)
    items, n = source.items, len(source.items)
    new = max(n // 100, 1)
    full, more = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory(prefix="fusionrec-store-") as place:
            for part, times in ((items[new:], full), (items, more)):
                start = time.perf_counter()
                rows = source.modality.rows(part, source.root)
                embed(source.modality, rows, source.spec, Store(Path(place)))
                times.append(time.perf_counter() - start)
    a, b = statistics.median(full), statistics.median(more)
    return {
        "case": "incremental", "unit": "share of a full run", "items": n, "new": new, "full_seconds": round(a, 3),
        "ours": float(f"{b / a:.4g}"), "seconds": round(b, 3), "target": 0.03,
    }  # fmt: skip


def unchanged(count: int) -> tuple[float, float]:
    """(seconds, peak anonymous MiB) of a second `run embed@text` over ``count`` texts whose vectors are in the store:
    of the stage itself, without the start of Python."""
    with tempfile.TemporaryDirectory(prefix="fusionrec-noop-") as place:
        script = [sys.executable, str(Path(__file__).resolve()), "--unchanged", str(count), "--place", place]
        out = subprocess.run(script, check=True, capture_output=True, text=True).stdout  # noqa: S603  (ourselves)
        taken, memory = map(float, out.split()[-2:])
        return taken, memory


def unchanged_here(count: int, place: Path) -> None:
    """Fill a store with random vectors, run the stage in a child, print its seconds and its peak of anonymous
    memory."""
    from fusionrec.data import schema
    from fusionrec.data.files import to_json
    from fusionrec.modalities.text import Text
    from fusionrec.paths import Paths

    paths = Paths(place / "project", place / "home")
    rng = np.random.default_rng(0)
    words = np.array(["lamp", "oak", "vase", "glass", "wool", "blue", "wedding", "camping", "desk", "small"])
    texts = [f"item {n} " + " ".join(rng.choice(words, 40)) for n in range(count)]
    for folder in (paths.tables / "items", paths.gate, paths.splits):
        folder.mkdir(parents=True)
    table = pl.DataFrame({"item_id": [f"i{n}" for n in range(count)], "description": texts, "language": ["en"] * count})
    table.write_parquet(paths.tables / "items" / "00-0000000000000000.parquet")
    (paths.tables / "ledger.json").write_bytes(to_json({}))
    schema.quarantine().write_parquet(paths.gate / "quarantine.parquet")
    spec = Text(fields=("description",), encoder=TypeAdapter(AnyEncoder).validate_python(MINILM))
    rows = spec.build().rows(table, place)
    store, key = Store(paths.store), spec.encoder.fingerprint()
    for shard in cut(dict(zip(rows.content, range(count), strict=True))):
        store.put(key, shard.contents, rng.normal(size=(len(shard), 384)).astype(np.float32), 384)
    del table, texts, rows
    (place / "params.json").write_text(spec.model_dump_json())
    child = subprocess.run(  # noqa: S603  (ourselves)
        [sys.executable, str(Path(__file__).resolve()), "--stage", "--place", str(place)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    print(child.stdout.split()[-2], child.stdout.split()[-1])


def stage_here(place: Path) -> None:
    """The stage twice in this process: the first run writes data/embeddings, the second has nothing to do."""
    import threading
    from types import SimpleNamespace

    from fusionrec.embeddings.engines.local import Local
    from fusionrec.modalities.text import Text
    from fusionrec.paths import Paths
    from fusionrec.stages import embed as stage

    source = SimpleNamespace(media_root=lambda project: project)
    spec = Text.model_validate_json((place / "params.json").read_text())
    params: Any = SimpleNamespace(source=source, modalities={"text": spec}, embed=Local())
    paths = Paths(place / "project", place / "home")
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            status = Path("/proc/self/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            peak[0] = max(peak[0], int(line.split()[1]) / 1024)

    stage.run(params, paths, "text")
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    report = stage.run(params, paths, "text")
    taken = time.perf_counter() - start
    over.set()
    watcher.join()
    if report.counts["encoded"]:
        raise RuntimeError(f"{report.counts['encoded']} were encoded, expected none")
    print(taken, peak[0])


def table(found: dict[str, Any]) -> str:
    """What docs/embedding.md shows of the results."""
    heads = ("case", "encoder", "contents", "items/s", "of the ceiling", "target", "of a plain loop", "of the peer")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---:|---:|---:|---:|---:|---:|"]
    rows = {row["case"]: row for row in found["rows"]}
    for row in found["rows"]:
        if "bound" in row:
            target = row["target_bound"] or "–"
            peer = f"{row['ratio_peer']:.2f}" if row["ratio_peer"] else "–"
            lines.append(
                f"| {row['case']} | `{row['encoder']['kind']}` | {row['items']:,} | {row['ours']:,.4g} "
                f"| {row['ratio_bound']:.2f} | {target} | {row['ratio_loop']:.2f} | {peer} |"
            )
    more, noop, memory = (rows.get(case) for case in ("incremental", "noop", "memory"))
    if more:
        lines.append(
            f"\n1 % new texts ({more['new']} of {more['items']:,}) took {100 * more['ours']:.1f} % of the full run "
            f"beyond start-up (target 3 %)."
        )
    if noop and memory:
        lines[-1] += (
            f" A run over {noop['items']:,} texts with nothing new took {noop['ours']:.1f} s beyond start-up "
            f"(target 2 s), and at most {memory['ours']:.0f} MiB more anonymous memory than one over 10,000 items "
            f"(target 300)."
        )
    machine = f"{found['machine']['cores']} cores {'with' if found['machine']['bf16'] else 'without'} bf16, no GPU"
    commits: dict[str, list[str]] = {}
    for row in found["rows"]:
        commits.setdefault(row["commit"], []).append(row["case"])
    of = ", ".join(f"{commit} ({', '.join(cases)})" for commit, cases in commits.items())
    return "\n".join(lines) + f"\n\n*`{COMMAND}` on {machine}; medians of {RUNS} turns. Commits: {of}.*\n"


def show() -> None:
    """Write the table into docs/embedding.md."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    found = json.loads((RESULTS / "embedding.json").read_text(encoding="utf-8"))
    PAGE.write_text(before + BEGIN + table(found) + END + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--items", type=int, help="at most so many contents a case; printed, not written")
    parser.add_argument("--table", action="store_true", help="write the table into docs/embedding.md, measure nothing")
    parser.add_argument("--unchanged", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--stage", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stage:
        return stage_here(asked.place)
    if asked.table:
        return show()
    if asked.unchanged:
        return unchanged_here(asked.unchanged, asked.place)
    most = asked.items or 1_000_000
    rows = speeds([c for c in asked.only if c in ("text", "image", "audio", "video")], most)
    if "incremental" in asked.only:
        rows.append(incremental(most))
        print(json.dumps(rows[-1]), flush=True)
    if {"noop", "memory"} & set(asked.only):
        (_, low), (large, high) = unchanged(10_000), unchanged(100_000)
        rows.append({"case": "noop", "unit": "s", "items": 100_000, "ours": round(large, 2), "target": 2.0})
        rows.append({
            "case": "memory", "unit": "MiB anonymous, 100,000 over 10,000 items", "target": 300,
            "ours": round(high - low, 1), "at_10k": round(low), "at_100k": round(high),
        })  # fmt: skip
        print(json.dumps(rows[-2:]), flush=True)
    if asked.items is None:
        old = RESULTS / "embedding.json"
        for row in rows:
            row["commit"] = about()["commit"][:9]  # a run with --only keeps the other rows, which are of another
        kept = [] if set(asked.only) == set(CASES) or not old.is_file() else json.loads(old.read_text())["rows"]
        new = {row["case"] for row in rows}
        write("embedding", {"rows": [row for row in kept if row["case"] not in new] + rows})
        show()


if __name__ == "__main__":
    main()
