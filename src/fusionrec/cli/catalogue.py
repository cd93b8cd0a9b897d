"""Commands about catalogues: looking at one, generating the demo, watching for drift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusionrec.cli.root import app, params_of, project, say
from fusionrec.errors import UsageError

PANEL = "Catalogues"


@app.command(rich_help_panel=PANEL)
def check(folder: Annotated[Path, typer.Argument(help="a folder with items and interactions")]) -> None:
    """Look at a catalogue folder as ingest would: found columns, rows, a suggested source section."""
    from fusionrec.data.check import check as look
    from fusionrec.errors import DataRejected

    found = look(folder)
    say(str(found))
    if not found.ok:
        why = [line.removeprefix("REJECTED ") for line in found.lines if line.startswith("REJECTED ")]
        raise DataRejected("\n".join(why) or "the gate would stop this catalogue")


@app.command("demo-data", rich_help_panel=PANEL)
def demo_data(
    seed: Annotated[int, typer.Option(min=0)] = 7,
    items: Annotated[int | None, typer.Option(min=20, help="default: the generator's")] = None,
    users: Annotated[int | None, typer.Option(min=20, help="default: the generator's")] = None,
    strength: Annotated[
        list[str] | None, typer.Option(help="how much a modality carries, e.g. text=0 (repeatable)")
    ] = None,
    out: Annotated[Path, typer.Option(help="where the catalogue goes")] = Path("data/raw/atelier"),
) -> None:
    """Generate the demo catalogue `atelier` and record it with DVC."""
    from fusionrec.cli import demo

    paths = project()
    say(demo.write(paths, out, seed=seed, items=items, users=users, strengths=_strengths(strength or [])))


def _strengths(pairs: list[str]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            found[name] = float(text)
        except ValueError:
            raise UsageError(f"--strength needs NAME=NUMBER such as text=0, found {pair!r}") from None
    return found


@app.command("demo-batch", rich_help_panel=PANEL)
def demo_batch(
    kind: Annotated[
        str, typer.Argument(help="none, or what is wrong: darker_pictures, other_language, louder_audio, ...")
    ],
    seed: Annotated[int, typer.Option(min=0, help="another seed, other items")] = 1,
    items: Annotated[int | None, typer.Option(min=20, help="default: the generator's")] = None,
    out: Annotated[Path | None, typer.Option(help="where the batch goes; default data/batches/KIND")] = None,
) -> None:
    """Generate a batch of ten new days of the demo, drifted on request, for `fusionrec monitor`."""
    from fusionrec.cli import demo

    say(demo.write_batch(project(), kind, out, seed=seed, items=items))


@app.command(rich_help_panel=PANEL)
def monitor(
    batch: Annotated[Path, typer.Argument(metavar="BATCH", help="a catalogue folder, as source.root is")],
) -> None:
    """Compare a batch with what the project was built on: what drifted, and who is to blame. Exit 5 on drift."""
    from fusionrec.errors import DriftDetected
    from fusionrec.stages import monitor as stage
    from fusionrec.stages.lock import default_wait, project_lock
    from fusionrec.stages.runner import show, write_json

    paths = project()
    params = params_of(paths)
    with project_lock(paths.home, "monitor", default_wait()):
        report = stage.run(params, paths, batch).as_dict()
    write_json(paths.reports / "monitor.json", report)
    drift, links = report["counts"]["drift"], dict(report["links"])
    if "evidently" in links:
        links["evidently"] += "  (while `fusionrec up` runs)"
    show({**report, "links": links, "notes": report["notes"][1:] if drift else report["notes"]})
    if drift:  # the sentence that was left out above is the error
        raise DriftDetected(f"{report['notes'][0]} See {report['links']['report']}")
