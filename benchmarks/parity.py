"""Our trained models against the same models of MMRec's own code: same split, settings and seeds, FUSIONREC_TIKTOK.

`python benchmarks/parity.py --reference CHECKOUT [--models a,b] [--seeds 3] [--ours 6] [--jobs N]`. Hours of one core;
every training is kept in benchmarks/results/units and not repeated; with --models no table is written. Both sides stop
early on validation Recall@20 and tell the test at that epoch; nothing is searched. The reference gets the audio
features in its place for text. Seeds of one model differ by more than the 3 % that are asked about, so ours, which take
a tenth of the time, get more of them, and differences have intervals (Welch, Biometrika 1947, over seeds).

Where early stopping happens to end a run moves its test more than anything else (BM3's validation falls after a few
epochs and needs about twenty to come back: some seeds stop there and some do not). So the curves are compared as well,
epoch by epoch, as far as every run of both sides goes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmrec_folders import folder, variable
from scipy import stats
from workspace import RESULTS, write

from fusionrec.data.files import write_json
from fusionrec.errors import FusionrecError
from fusionrec.studies import benchmark, comparison, protocol
from fusionrec.studies.contestants import Contestant, parse
from fusionrec.studies.protocol import Rules
from fusionrec.studies.runner import Runner
from fusionrec.studies.space import digest, replaced

SET = "tiktok"
UNITS = RESULTS / "units"
MINUTES = 120
SCRIPTS = Path(__file__).resolve().parent / "reference"
PATIENCE = 21  # the reference stops after *more than* its 20 validations without a better one
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # label: the reference's class, its settings, ours; one point of each published grid, fixed before any run
    "lightgcn": ("LightGCN", {"n_layers": 2, "reg_weight": 1e-4}, {"layers": 2, "reg": 1e-4}),
    "vbpr": ("VBPR", {"reg_weight": 1e-2}, {"reg": 1e-2}),
    "bm3": (
        "BM3",
        {"n_layers": 1, "dropout": 0.5, "reg_weight": 0.1},
        {"layers": 1, "dropout": 0.5, "reg": 0.1},
    ),
    "freedom": (
        "FREEDOM",
        {"dropout": 0.8, "reg_weight": 1e-3},
        {"dropout": 0.8, "reg": 1e-3, "weights": {"image": 0.1, "audio": 0.9}},
    ),
    "mgcn": ("MGCN", {"cl_loss": 0.01}, {"contrast": 0.01}),
}


def theirs(checkout: Path, place: Path, kind: str, seed: int, kept: Path) -> dict[str, Any]:
    """One training of the reference's code; from its file where the same code had the same settings."""
    model, settings, _ = MODELS[kind]
    path = kept / f"{kind}-{seed}-{digest([model, settings, source(checkout)])[:16]}.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    job = {
        "interactions": str(place / f"{SET}.inter"),
        "image": str(place / "image_feat.npy"),
        "text": str(place / "audio_feat.npy"),
        "settings": settings,
        "seed": seed,
    }
    script = SCRIPTS / "mmrec_run.py"
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, str(script), str(checkout), model, empty, json.dumps(job)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{model} of the reference failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    kept.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def source(checkout: Path) -> str:
    """sha256 over the reference's code and configuration, and over our scripts that run it."""
    found = hashlib.sha256()
    for root, pattern in ((checkout / "src", "**/*.py"), (checkout / "src", "**/*.yaml"), (SCRIPTS, "mmrec*.py")):
        for path in sorted(root.glob(pattern)):
            if path.name != "mmrec_epoch.py":  # of another benchmark
                found.update(path.relative_to(root).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def contestant(label: str) -> Contestant:
    who = parse(label, {"kind": label, **MODELS[label][2]})
    return Contestant(label, replaced(who.spec, {"training.patience": PATIENCE}), who.fusion)


def ours(runner: Runner, kind: str, seed: int) -> dict[str, Any]:
    unit = runner.run(contestant(kind), "test", seed)
    if unit["status"] != "done" or unit["capped"]:
        raise SystemExit(f"{kind} failed: {unit.get('reason') or f'cut short after {MINUTES} minutes'}")
    means = comparison.summary(comparison.values([unit], "all"), repeats=1)
    told = {name: means[name]["mean"] for name in ("recall@20", "ndcg@20")}
    curve = [[epoch["loss"], epoch["valid_recall@20"]] for epoch in unit["curve"]]
    return {"valid": unit["valid"], **told, "epochs": len(curve), "seconds": unit["seconds"]["fit"], "curve": curve}


def row(kind: str, mine: list[dict[str, Any]], peer: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(found: list[dict[str, Any]], name: str) -> float:
        return round(statistics.mean(f[name] for f in found), 5)

    out: dict[str, Any] = {"model": kind, "settings": MODELS[kind][1]}
    for side, found in (("ours", mine), ("reference", peer)):
        out[side] = {name: mean(found, name) for name in ("recall@20", "ndcg@20", "epochs", "seconds")}
        out[side]["seeds"] = [round(f["recall@20"], 5) for f in found]
    for name in ("recall@20", "ndcg@20"):
        out[f"{name} relative"] = round(out["ours"][name] / out["reference"][name] - 1, 4)
        out[f"{name} interval"] = interval([f[name] for f in mine], [f[name] for f in peer])
    return out | {"curves": curves(mine, peer)}


def curves(mine: list[dict[str, Any]], peer: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean loss and validation Recall@20 over the later half of the epochs that every run reached, ours by theirs."""
    stop = min(len(found["curve"]) for found in (*mine, *peer))
    out: dict[str, Any] = {"epochs": [stop // 2 + 1, stop]}
    for column, name in enumerate(("loss", "valid")):
        sides = [[statistics.mean(at[column] for at in f["curve"][stop // 2 : stop]) for f in s] for s in (mine, peer)]
        out[f"{name} relative"] = round(statistics.mean(sides[0]) / statistics.mean(sides[1]) - 1, 4)
        out[f"{name} interval"] = interval(*sides)
    return out


def interval(mine: list[float], peer: list[float]) -> list[float] | None:
    """95 % of the difference of the means, by the peer's mean; None where a side has one seed."""
    if min(len(mine), len(peer)) < 2:
        return None
    found = stats.ttest_ind(mine, peer, equal_var=False).confidence_interval(0.95)
    return [round(float(end) / statistics.mean(peer), 4) for end in (found.low, found.high)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of MMRec")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ours", type=int, default=6, help="seeds of ours")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args(arguments)
    kinds, seeds = asked.models.split(","), (range(asked.ours), range(asked.seeds))
    unknown = [kind for kind in kinds if kind not in MODELS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; models {', '.join(MODELS)}")
    if not (asked.reference / "src" / "configs").is_dir():
        parser.error(f"--reference: {asked.reference} is no checkout of MMRec")
    place = folder(SET)
    if place is None:
        raise SystemExit(f"{variable(SET)} is not set: the folder of the set")
    state = UNITS / protocol.load(place, Rules()).digest[:16]
    runner = Runner(place, Rules(), state, MINUTES, 1, say=lambda text: print(text, flush=True))
    try:
        with benchmark.alone(state):
            rows = measure(runner, asked.reference, kinds, seeds, asked.jobs)
    except FusionrecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for r in rows:
        print(json.dumps(r))
    if kinds != list(MODELS):
        print("the trainings are kept; with --models no table is written, run it without")
        return 0
    command = f"{variable(SET)}=FOLDER python benchmarks/parity.py --reference CHECKOUT"
    command += f" --seeds {asked.seeds} --ours {asked.ours}"
    write("parity", {"rows": rows, "command": command})
    return 0


def measure(
    runner: Runner, checkout: Path, kinds: list[str], seeds: tuple[range, range], jobs: int
) -> list[dict[str, Any]]:
    """One row a model; ``seeds`` of ours and of theirs."""
    place, kept = runner.folder, runner.state / "mmrec"
    with ThreadPoolExecutor(jobs) as pool:
        try:
            peer = {k: [pool.submit(theirs, checkout, place, k, s, kept) for s in seeds[1]] for k in kinds}
            mine = {k: [pool.submit(ours, runner, k, s) for s in seeds[0]] for k in kinds}
            return [row(k, [f.result() for f in mine[k]], [f.result() for f in peer[k]]) for k in kinds]
        except BaseException:
            runner.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


if __name__ == "__main__":
    sys.exit(main())
