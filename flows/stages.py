"""One flow per stage: the stage alone, in the project, if it is stale or forced. And promotion."""

from __future__ import annotations

from typing import Annotated, Any

from flows import environment

PATHS = environment.find()
environment.apply(PATHS)

from prefect import flow  # noqa: E402  (reads its settings when imported)
from prefect.states import Completed, State  # noqa: E402
from pydantic import Field  # noqa: E402

from flows.pipeline import Seconds, _work  # noqa: E402
from flows.tasks import register_task, show  # noqa: E402
from fusionrec.errors import GateFailed  # noqa: E402
from fusionrec.stages.lock import project_lock  # noqa: E402


def _only(name: str, force: bool, wait: int) -> dict[str, str]:
    paths = environment.find()
    with project_lock(paths.home, f"flow {name}", wait) as token:
        return _work(paths, [name], force, token)


@flow(name="ingest", persist_result=False)
def ingest(force: bool = False, wait_seconds: Seconds = 600) -> dict[str, str]:
    """Read the source into data/tables.

    Args:
        force: run it even where nothing changed
        wait_seconds: how long to wait for another run
    """
    return _only("ingest", force, wait_seconds)


@flow(name="validate", persist_result=False)
def validate(force: bool = False, wait_seconds: Seconds = 600) -> dict[str, str]:
    """Check the tables; hard rules fail the run, soft rules quarantine rows.

    Args:
        force: run it even where nothing changed
        wait_seconds: how long to wait for another run
    """
    return _only("validate", force, wait_seconds)


@flow(name="split", persist_result=False)
def split(force: bool = False, wait_seconds: Seconds = 600) -> dict[str, str]:
    """Split the interactions into train, valid and test.

    Args:
        force: run it even where nothing changed
        wait_seconds: how long to wait for another run
    """
    return _only("split", force, wait_seconds)


@flow(name="embed", persist_result=False)
def embed(force: bool = False, wait_seconds: Seconds = 600) -> dict[str, str]:
    """Encode every modality; only content that the store does not hold is encoded.

    Args:
        force: run it even where nothing changed
        wait_seconds: how long to wait for another run
    """
    return _only("embed", force, wait_seconds)


@flow(name="train", persist_result=False)
def train(force: bool = False, wait_seconds: Seconds = 600) -> dict[str, str]:
    """Train the model, its single-modality versions and the baselines.

    Args:
        force: run it even where nothing changed
        wait_seconds: how long to wait for another run
    """
    return _only("train", force, wait_seconds)


@flow(name="evaluate", persist_result=False)
def evaluate(force: bool = False, wait_seconds: Seconds = 600) -> dict[str, str]:
    """Measure every model on the test split.

    Args:
        force: run it even where nothing changed
        wait_seconds: how long to wait for another run
    """
    return _only("evaluate", force, wait_seconds)


@flow(name="bundle", persist_result=False)
def bundle(force: bool = False, wait_seconds: Seconds = 600) -> dict[str, str]:
    """Pack model, catalogue and user state, and register the result.

    Args:
        force: run it even where nothing changed
        wait_seconds: how long to wait for another run
    """
    return _only("bundle", force, wait_seconds)


@flow(name="register", persist_result=False)
def register(wait_seconds: Seconds = 600) -> dict[str, Any]:
    """Make sure that the bundle is registered in MLflow.

    Args:
        wait_seconds: how long to wait for another run
    """
    paths = environment.find()
    with project_lock(paths.home, "flow register", wait_seconds) as token:
        report = register_task(paths, token)
    show(paths, {"register": "Registered" if report["counts"].get("created") else "Known"}, report)
    return {"links": report["links"], "counts": report["counts"]}


@flow(name="promote", persist_result=False)
def promote(version: Annotated[int, Field(ge=1)] | None = None, wait_seconds: Seconds = 600) -> State[Any]:
    """Compare a version with the champion; a challenger that is not better ends as NotPromoted, which is no failure.

    Args:
        version: which version (default: the challenger)
        wait_seconds: how long to wait for another run
    """
    from fusionrec import config
    from fusionrec.stages import promote as stage

    paths = environment.find()
    params = config.load(paths.project / "params.yaml")
    with project_lock(paths.home, "flow promote", wait_seconds):
        try:
            report = stage.run(params, paths, version=version)
        except GateFailed as verdict:
            return Completed(name="NotPromoted", message=str(verdict).splitlines()[0])
    show(paths, {"promote": "Promoted"}, report.as_dict())
    return Completed(name="Promoted", message="; ".join(report.notes)[:500])
