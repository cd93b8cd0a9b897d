"""The pipeline flow: DVC says what is stale, Prefect runs and shows it.

Without changed parameters the run works in the project. With any, it works in an isolated workspace, its model goes to
MLflow, and the project stays as it is until ``fusionrec adopt RUN``.
"""

from __future__ import annotations

import logging
import uuid
from typing import Annotated, Any, Literal

from flows import environment

PATHS = environment.find()
environment.apply(PATHS)

from prefect import flow, get_run_logger  # noqa: E402  (reads its settings when imported)
from prefect.runtime import flow_run  # noqa: E402
from pydantic import Field  # noqa: E402

from flows.tasks import Progress, register_task, show, stage_task  # noqa: E402
from fusionrec.errors import UsageError  # noqa: E402
from fusionrec.paths import Paths  # noqa: E402
from fusionrec.stages import adopt, choices, isolated, split_address  # noqa: E402
from fusionrec.stages.lock import project_lock  # noqa: E402
from fusionrec.stages.stale import Step, steps  # noqa: E402


def one_of(names: tuple[str, ...]) -> Any:
    """The type of a drop-down of these names; any text where there are none."""
    return Literal[names] if names else str


StageName = Literal[choices.stage_names()]  # type: ignore[valid-type]
SAME = "as in params.yaml"
RetrieverKind = Literal[(SAME, *choices.retrievers())]  # type: ignore[valid-type]
FusionKind = Literal[(SAME, *choices.fusions())]  # type: ignore[valid-type]
RECIPES = tuple(adopt.recipes(PATHS.project))
RecipeOrSame = Literal[(SAME, *RECIPES)]  # type: ignore[valid-type]
Seed = Annotated[int, Field(ge=-1, le=2**31 - 1)]
Seconds = Annotated[int, Field(ge=0, le=86_400)]
Override = Annotated[str, Field(max_length=2000)]


@flow(name="pipeline", persist_result=False)
def pipeline(
    stages: list[StageName] = [],  # type: ignore[valid-type]  # noqa: B006  (Prefect copies defaults)
    recipe: RecipeOrSame = SAME,
    retriever: RetrieverKind = SAME,  # type: ignore[valid-type]
    fusion: FusionKind = SAME,  # type: ignore[valid-type]
    seed: Seed = -1,
    set: list[Override] = [],  # noqa: A002, B006  (the form's label; Prefect copies defaults)
    force: bool = False,
    wait_seconds: Seconds = 600,
) -> dict[str, str]:
    """Bring the pipeline up to date and register its model.

    Args:
        stages: only these stages (none: all)
        recipe: a recipe instead of params.yaml; runs isolated
        retriever: another retriever than params.yaml's, with its default settings; runs isolated
        fusion: another fusion, with its default settings; runs isolated
        seed: another training seed, runs isolated; -1: as in params.yaml
        set: further parameters as key=value, e.g. train.singles=false; runs isolated
        force: run the stages even where nothing changed
        wait_seconds: how long to wait for another run before giving up
    """
    paths = environment.find()
    raw = _parameters(paths, recipe, retriever, fusion, seed, set)
    run = str(flow_run.id or uuid.uuid4())
    with project_lock(paths.home, f"flow run {run}", wait_seconds) as token:
        if raw is None:
            return work(paths, stages or None, force, token)
        get_run_logger().info("changed parameters: this run is isolated; `fusionrec adopt %s` keeps it", run)
        with isolated.workspace(paths, raw, run) as place:
            return work(place, stages or None, force, {**token, isolated.RUN: run})


def _parameters(
    paths: Paths, recipe: str, retriever: str, fusion: str, seed: int, pairs: list[str]
) -> dict[str, Any] | None:
    """The resolved params of an isolated run, None where they are params.yaml's. Raises ConfigError before anything
    starts."""
    base = adopt.base_params(paths, None if recipe == SAME else recipe)
    overrides: dict[str, Any] = {}
    if retriever != SAME and base["train"]["retriever"].get("kind") != retriever:
        overrides["train.retriever"] = {"kind": retriever}
    if fusion != SAME and base["train"]["fusion"].get("kind") != fusion:
        overrides["train.fusion"] = {"kind": fusion}
    if seed >= 0 and base["train"].get("seed", 0) != seed:
        overrides["train.seed"] = seed
    return adopt.changed_params(paths, base, overrides | isolated.parse_overrides(pairs))


def work(paths: Paths, only: list[str] | None, force: bool, token: dict[str, str]) -> dict[str, str]:
    """Walk the plan; a failed stage ends the run with its cause."""
    logging.getLogger("dvc").setLevel(logging.WARNING)
    plan = steps(paths.project, paths.home)
    known = {split_address(step.address)[0] for step in plan}
    if only and not known & {*only}:
        raise UsageError(f"none of {', '.join(only)} is a stage of this pipeline: {', '.join(sorted(known))}")
    todo = [step for step in plan if _wanted(step, only)]
    registers = only is None or "bundle" in only
    progress = Progress([step.address for step in todo] + ["register"] * registers)
    states: dict[str, str] = {}
    for step in todo:
        states[step.address] = _run(step, paths, token, force)
        progress.done(step.address)
    report = None
    if registers:
        report = register_task(paths, token)
        states["register"] = "Registered" if report["counts"].get("created") else "Known"
        progress.done("register")
    show(paths, states, report)
    return states


def _wanted(step: Step, only: list[str] | None) -> bool:
    if step.source:
        return step.reason is not None and (only is None or "ingest" in only)
    return only is None or split_address(step.address)[0] in only


def _run(step: Step, paths: Paths, token: dict[str, str], force: bool) -> str:
    state = stage_task(step.address, step, paths, token, force and not step.source, return_state=True)
    if state.is_failed() or state.is_crashed():
        state.result(raise_on_failure=True)
    return str(state.name)


if __name__ == "__main__":
    pipeline()
