"""The five recipes on the demo, each beside itself on one modality alone, and beside the house model.

    python benchmarks/recipes.py [--only [ctr_net ...]] [--seeds 3] [--items 90 --users 150: a small demo, printed only]

Two hours and a half; with --only the house model and those named, what was found of the others stays as it is.

Each recipe is made the project's params.yaml and run with `dvc repro`, as a user would; its pictures are encoded by the
packaged encoder where the file names one of a hub. Lists are judged on the test users, clicks on the test impressions.
Intervals resample users; tests are paired over users (averaged over seeds), by random signs, two-sided, Holm over a
recipe's comparisons. The house model, which every recipe is compared with, has two seeds more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from workspace import RESULTS, about, environment_of, make, run, write

from fusionrec.config import load as load_params
from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from fusionrec.evaluation.significance import holm, interval, sign_flips
from fusionrec.evaluation.table import MAIN, TWO_STAGE
from fusionrec.paths import Paths
from fusionrec.ranking import comparing, frame
from fusionrec.ranking.judging import Judgement, judge
from fusionrec.registry import ranker as kept
from fusionrec.stages import ranked

HOUSE = "atelier"
RECIPES = ("ctr_net", "self_attention_graph", "attention_search", "deepfm_conversion", "cross_modal_alignment")
PACKAGED = {"kind": "efficientnet_lite0"}
"""What reads pictures where a recipe names an encoder that only a hub has."""
METRICS = (("recall@20", "all"), ("ndcg@20", "all"), ("ndcg@10", "all"), ("recall@10", "cold_only"))
CHOICES = ("click", "conversion")
SEEDS = 3
MORE = 2
"""Seeds of the house model beyond those of a recipe."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="RECIPE", default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--items", type=int)
    parser.add_argument("--users", type=int)
    asked = parser.parse_args()
    unknown = [name for name in asked.only if name not in RECIPES]
    if unknown:
        parser.error(f"--only: no recipe {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    small = [word for name in ("items", "users") if (n := getattr(asked, name)) for word in (f"--{name}", str(n))]
    with tempfile.TemporaryDirectory(prefix="fusionrec-recipes-") as place:
        folder, home = Path(place) / "project", Path(place) / "home"
        run(folder, make(folder, home), "fusionrec", "demo-data", *small)
        seeds = {HOUSE: asked.seeds + MORE * (not small), **dict.fromkeys(asked.only, asked.seeds)}
        ran = {name: [once(folder, home, name, seed) for seed in range(n)] for name, n in seeds.items()}
    commit = about()["commit"]
    content = {"recipes": {n: {**told(runs), "commit": commit} for n, runs in ran.items()}, "tests": tests(ran)}
    if small:
        print(yaml.safe_dump(content, sort_keys=False))
    else:
        write("recipes", joined(content))
        print(f"written to {RESULTS / 'recipes.json'}")


def joined(content: dict[str, Any]) -> dict[str, Any]:
    """What was found now, beside what is kept of the recipes that were not run."""
    path = RESULTS / "recipes.json"
    kept_: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"recipes": {}, "tests": []}
    now = content["recipes"]
    old = {name: {"commit": kept_["commit"], **one} for name, one in kept_["recipes"].items() if name not in now}
    return {
        "recipes": {**old, **now},
        "tests": [line for line in kept_["tests"] if line["recipe"] in old] + content["tests"],
    }


def once(folder: Path, home: Path, name: str, seed: int) -> dict[str, Any]:
    """One run of a recipe: each user's list metrics by model and slice, each ranker's judgements of clicks."""
    environment = environment_of(home, folder)
    run(folder, environment, "fusionrec", "use", name)
    file = folder / "params.yaml"
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    params["train"]["seed"] = params["rank"]["seed"] = seed
    instead = [m for m, one in params["modalities"].items() if "weights" in one["encoder"]]
    for modality in instead:
        params["modalities"][modality]["encoder"] = PACKAGED
    file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    start = time.monotonic()
    run(folder, environment, "dvc", "repro")
    seconds = time.monotonic() - start
    paths = Paths(folder, home)
    users = pl.read_parquet(paths.evaluation / "per_user.parquet").sort("user")
    at = {(m, part): users.filter(pl.col("model") == m, pl.col("slice") == part) for m, part in _cells(users)}
    lists = {f"{metric} {part}": {m: at[m, part][metric].to_numpy() for m, p in at if p == part}
             for metric, part in METRICS}  # fmt: skip
    print(name, "seed", seed, f"{seconds:.0f} s", {m: round(float(np.nanmean(v)), 4) for m, v in
          lists["ndcg@20 all"].items()}, flush=True)  # fmt: skip
    judged, shares = clicks(paths)
    return {
        "lists": lists, "clicks": judged, "shares": shares, "seconds": seconds, "instead": instead,
        "modalities": sorted(params["modalities"]), "labels": labels(params),
    }  # fmt: skip


def _cells(users: pl.DataFrame) -> list[tuple[str, str]]:
    parts = {part for _, part in METRICS}
    return [(m, p) for m, p in users.select("model", "slice").unique(maintain_order=True).iter_rows() if p in parts]


def labels(params: dict[str, Any]) -> dict[str, str]:
    """What stands behind the rows: the recommender with its fusion, and the ranker."""
    rank, train = params["rank"]["ranker"], params["train"]
    head = f", {rank['head']['kind']}" if "head" in rank else ""
    return {
        "model": f"{train['retriever']['kind']}, {train['fusion']['kind']}",
        "ranker": rank["kind"] + head,
        "encoders": ", ".join(f"{m}: {_named(one['encoder'])}" for m, one in sorted(params["modalities"].items())),
    }


def _named(encoder: dict[str, Any]) -> str:
    return f"{encoder['kind']} {encoder['of']['kind']}" if "of" in encoder else str(encoder["kind"])


def clicks(paths: Paths) -> tuple[dict[str, dict[str, Judgement]], dict[str, float]]:
    """Ranker -> task -> judgement of the test's impressions; task -> the share of them with a yes."""
    params = load_params(paths.project / "params.yaml")
    data = split.load(paths, ("train", "valid", "test"))
    items = embeddings.load(paths, tuple(params.modalities))
    shown = frame.load(paths, data, items, ("test",))
    found = ranked.load(paths, data, items)
    judged = {name: judge(one.ranker, shown.parts["test"], shown.positives) for name, one in found.items()}
    return judged, {task: float(np.nanmean(shown.parts["test"].labels[task])) for task in CHOICES}


def told(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of a recipe: lists by model, clicks and purchases by ranker, means over seeds with intervals over users."""
    lists = []
    for model in runs[0]["lists"]["ndcg@20 all"]:
        cells = {}
        for key, _ in ((f"{metric} {part}", part) for metric, part in METRICS):
            values = mean_of(runs, key, model)
            cells[key] = [float(np.nanmean(values)), *interval(values)]
        lists.append({"model": model, **{key: [round(v, 6) for v in cell] for key, cell in cells.items()}})
    found = {name: [one["clicks"][name] for one in runs] for name in runs[0]["clicks"]}
    tasks = [task for task in CHOICES if task in found[kept.MAIN][0]]
    return {
        "lists": lists,
        "clicks": comparing.rows(found, tasks),
        "seconds": round(float(np.median([one["seconds"] for one in runs])), 1),
        "seeds": len(runs),
        **{key: runs[0][key] for key in ("instead", "modalities", "labels", "shares")},
    }


def mean_of(runs: list[dict[str, Any]], key: str, model: str) -> np.ndarray:
    """(U,) of each user, averaged over seeds: those in which the model has the row."""
    there = [one["lists"][key][model] for one in runs if model in one["lists"][key]]
    return np.mean(there, axis=0)


def tests(ran: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Fused against each modality alone, in lists (NDCG@20) and in clicks; every recipe's lists against the house's,
    and with its ranker behind against without (NDCG@10)."""
    out = []
    for name, runs in ran.items():
        key = "ndcg@20 all"
        mine = mean_of(runs, key, MAIN)
        others = {m: mean_of(runs, key, m) for m in runs[0]["lists"][key] if m.startswith(kept.ONLY)}
        others |= {HOUSE: mean_of(ran[HOUSE], key, MAIN)} if name != HOUSE else {}
        lines = [{"against": other, **compared(mine, values)} for other, values in others.items()]
        corrected = holm({line["against"]: line["p"] for line in lines})
        out += [{"recipe": name, "metric": "ndcg@20", **line, "p_holm": corrected[line["against"]]} for line in lines]
        out += behind(name, runs)
        found = {ranker: [one["clicks"][ranker] for one in runs] for ranker in runs[0]["clicks"]}
        pairs = [(kept.MAIN, other) for other in found if other != kept.MAIN]
        said = comparing.tests(found, [t for t in CHOICES if t in found[kept.MAIN][0]], pairs)
        out += [{"recipe": name, **line} for line in said]
    return out


def behind(name: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lists with the ranker behind against those of retrieval alone, one test, so no Holm; none where no seed has them.
    A seed whose validation trusts retrieval alone has the same lists twice."""
    first = "ndcg@10 all"
    if not any(TWO_STAGE in one["lists"][first] for one in runs):
        return []
    lists = [one["lists"][first] for one in runs]
    ranked = np.mean([one.get(TWO_STAGE, one[MAIN]) for one in lists], axis=0)
    line = compared(ranked, mean_of(runs, first, MAIN))
    return [{"recipe": name, "metric": "ndcg@10", "against": TWO_STAGE, **line, "p_holm": line["p"]}]


def compared(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    d = a - b
    d = d[~np.isnan(d)]
    low, high = interval(d)
    return {"better by": float(d.mean()), "low": low, "high": high, "p": float(sign_flips(d[:, None])[0])}


if __name__ == "__main__":
    main()
