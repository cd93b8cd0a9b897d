"""Public sets as folders in the MMRec format, from copies that FUSIONREC_TIKTOK, _LFM2K, _ML1M, _GOWALLA point to.

Nothing of the sets is part of this repository; the folders are written below the private home (.fusionrec, or
FUSIONREC_BENCH_FOLDERS). `python benchmarks/mmrec_folders.py` writes those whose variable is set.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from workspace import ROOT, make, run

LABELS = {"train": 0, "valid": 1, "test": 2}
FEATURES = {
    "tiktok": {"image": "image_feat.npy", "audio": "audio_feat.npy"},
    "lfm2k": {"text": "text_minilm.npy", "audio": "audio_vggish.npy", "speech": "audio_whisper.npy"},
    "gowalla": {},
}
SETS = (*FEATURES, "ml1m")


def variable(name: str) -> str:
    return f"FUSIONREC_{name.upper()}"


def folder(name: str) -> Path | None:
    """The set's folder in the MMRec format, written where it is not there; None where its variable is not set."""
    source = os.environ.get(variable(name))
    if not source:
        return None
    place = Path(os.environ.get("FUSIONREC_BENCH_FOLDERS") or ROOT / ".fusionrec" / "bench" / "folders")
    if not (place / name).is_dir():
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=place) as making:
            whole = Path(making) / name
            whole.mkdir()
            if name == "ml1m":
                films(Path(source), whole)
            else:
                published(Path(source), whole, FEATURES[name])
            shutil.move(whole, place / name)
    return place / name


def folders(names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """``names``, all sets where none is named, with their folders; a set whose variable is not set is told and left."""
    for name in names or SETS:
        place = folder(name)
        if place is None:
            print(f"{name}: skipped, {variable(name)} is not set")
        else:
            yield name, place


def published(source: Path, out: Path, features: Mapping[str, str]) -> None:
    """interactions.parquet with user_id, item_id, split; feature files whose rows are item ids."""
    log = pl.read_parquet(source / "interactions.parquet")
    label = pl.col("split").replace_strict(LABELS, return_dtype=pl.Int64)
    write_log(log.select(userID="user_id", itemID="item_id", x_label=label), out)
    for modality, file in features.items():
        np.save(out / f"{modality}_feat.npy", np.load(source / file, allow_pickle=False))
    if (source / "items.csv").is_file():
        items = pl.read_csv(source / "items.csv", infer_schema=False).select(pl.col("item_id").alias("itemID"), "title")
        items.write_csv(out / f"meta-{out.name}.csv")


def films(source: Path, out: Path) -> None:
    """Likes (no split: the protocol draws one), plots and posters through our encoders by the recipe `movies`."""
    with tempfile.TemporaryDirectory(prefix="fusionrec-films-") as place:
        project, home = Path(place) / "project", Path(place) / "home"
        environment = make(project, home) | {"FUSIONREC_MOVIES": str(source.resolve())}
        run(project, environment, "fusionrec", "use", "movies")
        run(project, environment, "dvc", "repro", "split", "embed")
        ids = pl.read_parquet(project / "data" / "splits" / "items.parquet")["item_id"].to_list()
        order = sorted(range(len(ids)), key=lambda row: int(ids[row]))
        for modality in ("text", "image"):
            vectors = np.load(project / "data" / "embeddings" / modality / "vectors.npy", allow_pickle=False)
            np.save(out / f"{modality}_feat.npy", vectors[order])
    names = [ids[row] for row in order]
    number = pl.DataFrame({"item_id": names, "itemID": range(len(names))})
    number.write_csv(out / "i_id_mapping.csv", separator="\t")
    log = pl.read_parquet(source / "interactions.parquet").filter(pl.col("liked") == 1)
    log = log.with_columns(pl.col("item_id").cast(pl.String)).join(number, on="item_id", maintain_order="left")
    write_log(log.select(pl.col("user_id").alias("userID"), "itemID"), out)


def write_log(log: pl.DataFrame, out: Path) -> None:
    log.write_csv(out / f"{out.name}.inter", separator="\t")


def main() -> None:
    for name, place in folders(()):
        print(f"{name}: {place}")


if __name__ == "__main__":
    main()
