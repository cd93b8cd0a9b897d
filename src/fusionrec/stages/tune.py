"""tune: search the parameters of ``train.retriever`` on the validation split (D13, E6).

Not a DVC stage: it changes nothing but the private state and, when told to, params.yaml. It reads the training and
the validation split and the embeddings; nothing here can open another split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal

from fusionrec.config import Params
from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import ConfigError, DataRejected, FusionrecError
from fusionrec.paths import Paths
from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.recommenders.validation import validation_metric
from fusionrec.registry import trials as mlflow_trials
from fusionrec.registry.sealed import sha256_file
from fusionrec.registry.trials import StudyRecord, TrialRecord
from fusionrec.stages.params_file import write_retriever
from fusionrec.stages.trials import Watch, rows, shown, text
from fusionrec.studies.contestants import dump
from fusionrec.studies.file import AnotherSearch, forget
from fusionrec.studies.search import Evaluate, Found, Told, Trial, search
from fusionrec.studies.space import digest, space_of
from fusionrec.studies.unit import code_digest, kinds
from fusionrec.types import ItemSet, Report

SPLITS = ("train", "valid")
VALID_USERS = 20_000  # asked for a trial's value; more do not change a choice


def run(
    params: Params,
    paths: Paths,
    *,
    trials: int = 12,
    fresh: bool = False,
    adopt: bool = False,
    minutes: float | None = None,
    watch: Watch = lambda trial: None,
) -> Report:
    """Search until ``trials`` trials are finished, those of earlier calls among them, and report them all.

    ``fresh`` throws earlier trials away; ``minutes`` bounds one trial, and those that an earlier call stopped sooner
    are tried again; ``adopt`` writes the best parameters to params.yaml; ``watch`` gets each trial at its beginning and
    its end. Raises DataRejected without validation pairs and ConfigError where there is nothing to search, where the
    earlier trials were made with other parameters, data or code, and where every trial failed.
    """
    start = time.monotonic()
    data = split.load(paths, ("train", "valid"))
    items = embeddings.load(paths, tuple(params.modalities)) if params.modalities else ItemSet(ids=data.items)
    spec = params.train.retriever
    if items.ids != data.items:
        raise DataRejected("the embeddings and the splits speak of different items: run `dvc repro`")
    if len(data.valid) == 0:
        raise DataRejected("nothing to choose by: no pair of a training user in data/splits/valid.parquet")
    space = space_of(spec)
    if not space.choices:
        raise ConfigError(f"train.retriever: {spec.kind} declares nothing to search (its space is empty)")
    storage = paths.home / "studies" / f"tune-{spec.kind}.sqlite"
    if fresh:
        forget(storage)
    metric = f"{params.evaluate.main_metric}@{params.evaluate.main_k}"
    kept = _Ledger(params, paths, f"valid_{metric}")
    with shown(metric, min(trials, space.size)) as (show, epoch):

        def tell(trial: Trial) -> None:
            show(trial)
            watch(trial)
            kept.add(trial)

        found = _search(
            spec,
            _evaluate(params, data, items, metric, epoch),
            trials=trials,
            seed=params.train.seed,
            storage=storage,
            name=spec.kind,
            watch=tell,
            data=_data(params, paths, metric),
            code=code_digest(kinds([dump(spec), dump(params.train.fusion)])),
            seconds=None if minutes is None else 60.0 * minutes,
            kept=kept,
        )
    if adopt:
        changed = [field for field, value in found.best.point.items() if value != found.trials[0].point[field]]
        write_retriever(paths.project / "params.yaml", found.spec, changed)
    report = _report(found, kept, metric, space.size < trials, adopt)
    report.links["trials"] = storage.relative_to(paths.home.parent).as_posix()
    report.seconds["total"] = time.monotonic() - start
    return report


def _search(spec: RetrieverSpec, evaluate: Evaluate, *, kept: _Ledger, **how: object) -> Found:
    """The search, with its end in MLflow whatever it is."""
    try:
        found = search(spec, evaluate, **how)  # type: ignore[arg-type]
    except AnotherSearch as error:
        raise ConfigError(f"{error}: `fusionrec tune --fresh` throws the earlier trials away") from None
    except ConfigError:
        kept.write("failed", None)
        raise
    except BaseException:
        if kept.page:  # whoever stops us does not wait for a server that may be down
            kept.write("stopped", None)
        raise
    kept.write("done", found.best.number)
    return found


def _evaluate(
    params: Params, data: split.SplitData, items: ItemSet, metric: str, show: Callable[[int, float], None]
) -> Evaluate:
    """Fit on train, early stopping and all, and score on valid."""

    def evaluate(spec: RetrieverSpec, report: Told) -> float:
        step = 0

        def watch(epoch: int, values: Mapping[str, float]) -> None:
            nonlocal step
            valid = [value for name, value in values.items() if name.startswith("valid_")]
            if valid:  # parts of a blend count on: their own epochs begin anew
                show(step, valid[0])
                report(step, valid[0])
                step += 1

        retriever = spec.build(params.train.fusion)
        retriever.fit(data.train, data.valid, items, seed=params.train.seed, watch=watch)
        return validation_metric(retriever, data.train, data.valid, metric, VALID_USERS)

    return evaluate


def _data(params: Params, paths: Paths, metric: str) -> str:
    """A digest of everything but the spec that a trial's value depends on."""
    files = {name: sha256_file(paths.splits / f"{name}.parquet") for name in ("items", *SPLITS)}
    vectors = {name: embeddings.read_manifest(paths, name) for name in sorted(params.modalities)}
    return digest([files, vectors, params.train.fusion.model_dump(mode="json"), params.train.seed, metric])


class _Ledger:
    """What MLflow is told, trial by trial. Where it does not answer the trials stay in their file, and the next call
    writes them."""

    def __init__(self, params: Params, paths: Paths, metric: str) -> None:
        self.home, self.experiment = paths.home, params.registry.experiment
        self.name, self.metric = params.train.retriever.kind, metric
        self.shared = params.model_dump(mode="json", include={"train": {"retriever", "fusion", "seed"}})["train"]
        self.trials: dict[int, Trial] = {}
        self.new: set[int] = set()
        self.page, self.why = "", ""

    def add(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        if trial.state == "running":
            self.new.add(trial.number)
        elif trial.number in self.new and not self.why:  # a dead server is asked once, and again at the end
            self.write("running", None)

    def write(self, state: Literal["running", "done", "failed", "stopped"], best: int | None) -> None:
        ended = [trial for trial in self.trials.values() if trial.state != "running"]
        if not ended:
            return
        records = [_record(trial) for trial in ended]
        study = StudyRecord(ended[0].study, self.name, self.metric, records, self.shared, best=best, state=state)
        try:
            self.page, self.why = mlflow_trials.record(self.home, self.experiment, study), ""
        except FusionrecError as error:
            self.why = str(error).splitlines()[0]


def _record(trial: Trial) -> TrialRecord:
    params = {field: text(value) for field, value in trial.point.items()}
    return TrialRecord(
        trial.number, params, trial.state, trial.value, trial.reason, trial.seconds, trial.curve  # type: ignore[arg-type]
    )  # fmt: skip


def _report(found: Found, kept: _Ledger, metric: str, all_of_it: bool, adopted: bool) -> Report:
    best, given = found.best, found.trials[0]
    failed = [trial for trial in found.trials if trial.state == "failed"]
    chosen = ", ".join(f"{field} {text(value)}" for field, value in best.point.items())
    was = f"{given.value:.4f}" if given.value is not None else f"none ({given.reason})"
    report = Report(
        "tune",
        counts={
            "trials": len(found.trials),
            "from earlier calls": len(found.trials) - len(kept.new & {t.number for t in found.trials}),
            "failed": len(failed),
            f"best valid {metric}": round(found.value, 6),
        },
        seconds={"trials": sum(trial.seconds for trial in found.trials)},
        table=rows({trial.number: trial for trial in found.trials}, metric, best.number),
        notes=[f"best on validation: trial {best.number} with {metric} {found.value:.4f} (as given: {was}): {chosen}"],
    )
    if failed:
        report.notes.append(f"{len(failed)} of {len(found.trials)} trials failed; the first: {failed[0].reason}")
    if all_of_it:
        report.notes.append(f"that is the whole space: it has {len(found.trials)} points")
    if not best.number:
        report.notes.append("params.yaml has the best parameters already")
    elif adopted:
        report.notes.append("params.yaml has the best parameters now; next: fusionrec repro")
    else:
        report.notes.append("to write the best parameters to params.yaml: fusionrec tune --adopt")
    if kept.page:
        report.links["run"] = kept.page
    if kept.why:
        report.notes.append(
            f"not in MLflow ({kept.why}); the trials are kept, and the next `fusionrec tune` writes them"
        )
    return report
