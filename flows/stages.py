"""One flow for each stage: the stage alone, in the project, if it is stale or forced."""

from __future__ import annotations

from typing import Any

from flows import environment

PATHS = environment.find()
environment.apply(PATHS)

from prefect import flow  # noqa: E402  (reads its settings when imported)

from flows.pipeline import Seconds, work  # noqa: E402
from flows.tasks import register_task, show  # noqa: E402
from fusionrec.stages.lock import project_lock  # noqa: E402

ABOUT = {
    "ingest": "Read the source into data/tables.",
    "validate": "Check the tables; hard rules fail the run, soft rules set rows aside.",
    "split": "Split the interactions into train, valid and test.",
    "learn": "Train the encoders that have weights to learn, on the training split; nothing where all are frozen.",
    "embed": "Encode every modality; only content that the store does not hold is encoded.",
    "words": "Encode what users wrote and asked, where a ranker reads it; nothing else.",
    "train": "Train the model, its single-modality versions and the baselines.",
    "rank": "Train the rankers on what was shown and what came of it.",
    "evaluate": "Measure every model on the test split.",
    "bundle": "Pack model, catalogue and user state, and register the result.",
}


def single(name: str) -> Any:
    """The flow of one stage; Prefect's form takes its fields and their help from the signature and the docstring."""

    def run(force: bool = False, wait_seconds: Seconds = 600) -> dict[str, str]:
        paths = environment.find()
        with project_lock(paths.home, f"flow {name}", wait_seconds) as token:
            return work(paths, [name], force, token)

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"""{ABOUT[name]}

    Args:
        force: run it even where nothing changed
        wait_seconds: how long to wait for another run before giving up
    """
    return flow(name=name, persist_result=False)(run)


ingest, validate, split = single("ingest"), single("validate"), single("split")
learn, embed, words = single("learn"), single("embed"), single("words")
train, rank = single("train"), single("rank")
evaluate, bundle = single("evaluate"), single("bundle")


@flow(name="register", persist_result=False)
def register(wait_seconds: Seconds = 600) -> dict[str, Any]:
    """Make sure that the bundle is registered in MLflow.

    Args:
        wait_seconds: how long to wait for another run before giving up
    """
    paths = environment.find()
    with project_lock(paths.home, "flow register", wait_seconds) as token:
        report = register_task(paths, token)
    show(paths, {"register": "Registered" if report["counts"].get("created") else "Known"}, report)
    return {"links": report["links"], "counts": report["counts"]}
