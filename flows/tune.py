"""The tune flow: search the parameters of the model on the validation split, every trial in sight."""

from __future__ import annotations

from typing import Annotated, Any

from flows import environment

PATHS = environment.find()
environment.apply(PATHS)

from prefect import flow, get_run_logger  # noqa: E402  (reads its settings when imported)
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.states import Completed, State  # noqa: E402
from pydantic import Field  # noqa: E402

from flows.pipeline import Seconds  # noqa: E402
from flows.tasks import cell, in_mlflow  # noqa: E402
from fusionrec.stages.lock import project_lock  # noqa: E402

Trials = Annotated[int, Field(ge=1, le=200)]
Minutes = Annotated[int, Field(ge=1, le=1440)]


@flow(name="tune", persist_result=False)
def tune(
    trials: Trials = 12, minutes: Minutes = 60, fresh: bool = False, adopt: bool = False, wait_seconds: Seconds = 600
) -> State[Any]:
    """Search the parameters of train.retriever on the validation split; the test split is never read.

    Args:
        trials: how many points in all, those of earlier runs included; a run that was stopped goes on
        minutes: a trial that takes longer fails
        fresh: throw the earlier trials away
        adopt: write the best parameters to params.yaml; the next pipeline run trains with them
        wait_seconds: how long to wait for another run before giving up
    """
    from fusionrec import config
    from fusionrec.stages import tune as stage
    from fusionrec.stages.runner import write_json
    from fusionrec.studies.search import Trial

    paths = environment.find()
    log = get_run_logger()

    def watch(trial: Trial) -> None:
        what = f"{trial.value:.4f}" if trial.value is not None else trial.reason
        log.info("trial %d %s %s", trial.number, trial.state, what)

    with project_lock(paths.home, "flow tune", wait_seconds):
        params = config.load(paths.project / "params.yaml")
        report = stage.run(
            params, paths, trials=trials, fresh=fresh, adopt=adopt, minutes=float(minutes), watch=watch
        ).as_dict()
        write_json(paths.reports / "tune.json", report)
    for note in report["notes"]:
        log.info(note)
    present(report)
    return Completed(name="Adopted" if adopt else "Searched", message=report["notes"][0][:500])


def present(report: dict[str, Any]) -> None:
    """Artifacts: the best parameters, every trial as a table, a link to the study's run in MLflow."""
    best = next(row for row in report["table"] if row[""] == "best")
    lines = [f"| {cell(name)} | {cell(value)} |" for name, value in best.items() if name and value not in ("", None)]
    notes = [f"- {cell(note)}" for note in report["notes"]]
    text = "\n".join(["| best trial | |", "|---|---|", *lines, "", *notes])
    create_markdown_artifact(key="best-parameters", markdown=text, description="the best trial on validation")
    rows = [{name or "state": value for name, value in row.items()} for row in report["table"]]
    create_table_artifact(key="trials", table=rows, description="every trial of the search, on validation")
    if link := in_mlflow(report["links"].get("run", "")):
        text = "MLflow: the search and its trials"
        create_link_artifact(key="mlflow-search", link=link, link_text=text, description=text)


if __name__ == "__main__":
    tune()
