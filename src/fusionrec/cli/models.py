"""Commands that compare models, and decide which one is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusionrec.cli.root import app, params_of, print_table, project, say

PANEL = "Models"


@app.command(rich_help_panel=PANEL)
def tune(
    trials: Annotated[int, typer.Option(min=1, max=1000, help="how many points in all, earlier calls' included")] = 12,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="go on with the earlier trials, or throw them away")
    ] = True,
    adopt: Annotated[bool, typer.Option("--adopt", help="write the best parameters to params.yaml")] = False,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="a trial that takes longer fails")] = None,
) -> None:
    """Search the parameters of train.retriever on the validation split; `test` is never read."""
    from fusionrec.stages import tune as stage
    from fusionrec.stages.lock import default_wait, project_lock
    from fusionrec.stages.runner import show, write_json

    paths = project()
    params = params_of(paths)
    with project_lock(paths.home, "tune", default_wait()):
        report = stage.run(params, paths, trials=trials, fresh=not resume, adopt=adopt, minutes=minutes).as_dict()
        write_json(paths.reports / "tune.json", report)
    show(report)


@app.command(rich_help_panel=PANEL)
def bench(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="in MMRec's format: NAME.inter and *_feat.npy")],
    models: Annotated[
        str | None, typer.Option(help="kinds or names of --spec, with commas; default: all of --spec")
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(help="YAML or JSON: name -> model; an earlier result gives what it chose")
    ] = None,
    trials: Annotated[int, typer.Option(min=0, help="points tried on validation for each model; 0: as given")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="fits of each model for the test")] = 5,
    minutes: Annotated[
        float,
        typer.Option(min=0.01, help="a training that takes longer ends after its epoch, and is so called"),
    ] = 15,
    jobs: Annotated[int, typer.Option(min=1, help="units side by side; the cores are shared out")] = 1,
    missing: Annotated[float, typer.Option(help="share of the (item, modality) cells that is hidden")] = 0.0,
    cold: Annotated[float, typer.Option(help="share of the items that is removed from train")] = 0.0,
    join: Annotated[
        bool,
        typer.Option("--join", help="train on train and validation, but for a drawn pair of each user"),
    ] = False,
    test_selected: Annotated[
        bool, typer.Option("--test-selected", help="also tell what choosing on the test set would have given")
    ] = False,
    any_code: Annotated[bool, typer.Option("--any-code", help="use stored units of other code too")] = False,
    out: Annotated[Path | None, typer.Option(help="write the results here as JSON")] = None,
) -> None:
    """Compare models on a folder in MMRec's format: chosen on validation, tested once. Run again, it goes on."""
    from fusionrec.cli import benching

    effort = {"trials": trials, "seeds": seeds, "minutes": minutes, "jobs": jobs}
    effort |= {"test_selected": test_selected, "any_code": any_code}
    rules = {"missing": missing, "cold": cold, "join": join}
    found, parts = benching.run(folder, models, spec, out, effort, rules, say)
    for part, rows in parts.items():
        print_table([dict(row) for row in rows], f"{found['set']['name']}: {part}")
    benching.all_came_through(found)


@app.command(rich_help_panel=PANEL)
def splits(out: Annotated[Path | None, typer.Option(help="write the results here as JSON")] = None) -> None:
    """Train and test the project's models under random, leave-last-out and global-time splits, side by side."""
    from fusionrec.cli import splitting
    from fusionrec.studies.splits import rows_for_people

    paths = project()
    found = splitting.run(params_of(paths), paths, out, say)
    print_table([dict(row) for row in rows_for_people(found)], f"{found['metric']}, all test users, 95 % intervals")
    for line in found["means"]:
        say(line)


@app.command(rich_help_panel=PANEL)
def register(wait: Annotated[float | None, typer.Option(help="seconds to wait for another run")] = None) -> None:
    """Make sure that a version with this bundle's digest exists in MLflow and is judged (does nothing twice)."""
    from fusionrec.stages.runner import run_stage, show

    show(run_stage("register", project(), wait=wait))


@app.command(rich_help_panel=PANEL)
def promote(version: Annotated[int | None, typer.Option(help="which version; default: the challenger")] = None) -> None:
    """Compare challenger and champion on common data; move `champion` if it is better, else exit 4."""
    from fusionrec.stages import promote as stage
    from fusionrec.stages.lock import default_wait, project_lock
    from fusionrec.stages.runner import show, write_json

    paths = project()
    params = params_of(paths)
    with project_lock(paths.home, "promote", default_wait()):
        report = stage.run(params, paths, version=version).as_dict()
    write_json(paths.reports / "promote.json", report)
    show(report)


@app.command(rich_help_panel=PANEL)
def guard(
    seconds: Annotated[float, typer.Argument(min=0.2, help="with --watch: how often to look")] = 1.0,
    watch: Annotated[bool, typer.Option("--watch", help="keep looking until stopped: --watch SECONDS")] = False,
) -> None:
    """Keep MLflow's alias `champion` on versions that passed the gate; exit 4 if somebody's change was put back."""
    from fusionrec.errors import GateFailed
    from fusionrec.stages import guard as stage

    paths = project()
    params = params_of(paths)
    stage.through_the_server()
    if watch:
        stage.watch(params, paths, seconds, say)
        return
    outcome = stage.once(params, paths)
    if outcome is not None and outcome.put_back:
        raise GateFailed(outcome.text)
    say(outcome.text if outcome is not None else "the alias champion is where it was accepted")
