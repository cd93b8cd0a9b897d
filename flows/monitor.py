"""The monitor flow: does a batch still look like what the project was built on? Drift is a verdict, not a failure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from flows import environment

PATHS = environment.find()
environment.apply(PATHS)

from prefect import flow, get_run_logger  # noqa: E402  (reads its settings when imported)
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact  # noqa: E402
from prefect.states import Completed, State  # noqa: E402
from pydantic import Field  # noqa: E402

from flows.pipeline import Seconds, one_of  # noqa: E402
from flows.tasks import cell, link_to  # noqa: E402
from fusionrec.errors import UsageError  # noqa: E402
from fusionrec.paths import Paths  # noqa: E402
from fusionrec.stages.lock import project_lock  # noqa: E402

NEWEST = "newest"
EVIDENTLY_URL = "FUSIONREC_EVIDENTLY_URL"


def batches(paths: Paths) -> list[str]:
    """The folders of data/batches, newest first."""
    folder = paths.data / "batches"
    found = [f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")] if folder.is_dir() else []
    return [f.name for f in sorted(found, key=lambda f: (-f.stat().st_mtime, f.name))]


Batch = one_of((NEWEST, *sorted(batches(PATHS))))
Folder = Annotated[str, Field(max_length=1000)]


@flow(name="monitor", persist_result=False)
def monitor(batch: Batch = NEWEST, folder: Folder = "", wait_seconds: Seconds = 600) -> State[Any]:  # type: ignore[valid-type]
    """Compare a batch with what the project was built on: what drifted, by how much, and which modality is to blame.

    Args:
        batch: a folder of data/batches; newest takes the one that was changed last
        folder: any other catalogue folder, absolute or from the project; wins over batch
        wait_seconds: how long to wait for another run before giving up
    """
    from fusionrec import config
    from fusionrec.stages import monitor as stage
    from fusionrec.stages.runner import write_json

    paths = environment.find()
    place = chosen(paths, batch, folder)
    log = get_run_logger()
    log.info("comparing %s", place)
    params = config.load(paths.project / "params.yaml")
    with project_lock(paths.home, "flow monitor", wait_seconds):
        report = stage.run(params, paths, place).as_dict()
        write_json(paths.reports / "monitor.json", report)
    for note in report["notes"]:
        log.info(note)
    present(paths, report)
    return Completed(name="Drifted" if report["counts"]["drift"] else "Stable", message=report["notes"][0][:500])


def chosen(paths: Paths, batch: str, folder: str) -> Path:
    """The folder to compare. Raises UsageError where there is none."""
    if folder.strip():
        return (paths.project / Path(folder.strip()).expanduser()).resolve()
    known = batches(paths)
    if batch == NEWEST:
        if not known:
            raise UsageError(
                "data/batches is empty: put a catalogue folder there, name one in the field folder, or make one with "
                "`fusionrec demo-batch`"
            )
        return paths.data / "batches" / known[0]
    if batch not in known:
        raise UsageError(f"data/batches has no folder {batch!r}; it has {', '.join(known) or 'none'}")
    return paths.data / "batches" / batch


def present(paths: Paths, report: dict[str, Any]) -> None:
    """Artifacts: the verdict, what drifted as a table, links to the report, the descriptors and Evidently's history."""
    lines = "\n".join(f"- {cell(note)}" for note in report["notes"])
    create_markdown_artifact(key="drift-verdict", markdown=lines, description="the verdict and its reasons")
    create_table_artifact(key="drift", table=report["table"][:200], description="every comparison, alarms first")
    for name, text in (("report", "drift report"), ("descriptors", "Evidently's page on the descriptors")):
        if name in report["links"]:
            inside = report["links"][name].removeprefix(f"{paths.home.name}/")
            link_to(f"drift-{name}", paths.home / inside, inside, text)
    if "evidently" in report["links"] and os.environ.get(EVIDENTLY_URL):
        link, text = report["links"]["evidently"], "history in Evidently"
        create_link_artifact(key="drift-history", link=link, link_text=text, description=text)


if __name__ == "__main__":
    monitor()
