"""The command line. Every command imports what it needs when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusionrec.errors import FusionrecError, UsageError

if TYPE_CHECKING:
    from fusionrec.config import Params
    from fusionrec.paths import Paths

app = typer.Typer(
    name="fusionrec",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From a catalogue with pictures, words, sounds and clips to a registered multimodal recommender.",
)
config_app = typer.Typer(no_args_is_help=True, help="Show or check params.yaml.")
app.add_typer(config_app, name="config")


def _paths() -> Paths:
    """The project, with its private home and DVC's private site cache in place."""
    from fusionrec.paths import Paths
    from fusionrec.stages.process import private_home, private_site_cache

    paths = Paths.find()
    private_home(paths.home)
    private_site_cache(paths.project, paths.home)
    os.environ["DVC_SITE_CACHE_DIR"] = str(paths.home / "dvc-site")
    return paths


def _params(paths: Paths) -> Params:
    from fusionrec import config

    return config.load(paths.project / "params.yaml")


def _say(text: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(highlight=False, soft_wrap=True).print(escape(text))


def _table(rows: list[dict[str, Any]], title: str = "") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            *("" if v is None else f"{v:,.2f}" if isinstance(v, float) else escape(str(v)) for v in row.values())
        )
    # a file or a pipe has no width of its own: 80 columns would fold every cell of a wide table
    Console(highlight=False, width=None if sys.stdout.isatty() else 240).print(table)


@app.command()
def run(
    stage: Annotated[
        str, typer.Argument(help="ingest, validate, split, embed, train, evaluate, bundle, register or promote")
    ],
    modality: Annotated[str | None, typer.Option(help="for embed: which modality of params.yaml")] = None,
    wait: Annotated[
        float | None, typer.Option(help="seconds to wait for another run; default FUSIONREC_LOCK_WAIT or 600")
    ] = None,
) -> None:
    """Run one stage now, whatever is up to date (what DVC calls)."""
    from fusionrec.stages.runner import main as run_main

    raise SystemExit(run_main(stage, modality, wait))


@app.command()
def repro(
    force: Annotated[bool, typer.Option("--force", help="run every stage, up to date or not")] = False,
    wait: Annotated[float | None, typer.Option(help="seconds to wait for another run")] = None,
) -> None:
    """Bring everything up to date (dvc repro), then make sure the bundle is registered."""
    from fusionrec.stages import reproduce
    from fusionrec.stages.lock import default_wait, project_lock

    paths = _paths()
    params = _params(paths)  # a bad params.yaml ends here, before DVC or a shell sees it
    _need_source(paths, params)
    with project_lock(paths.home, "fusionrec repro", default_wait() if wait is None else wait) as token:
        child = reproduce.start(paths.project, paths.home, reproduce.command(force=force), token, capture=False)
        try:
            code = child.wait()
        finally:
            reproduce.stop(child)
        if code == 0:
            os.environ.update(token)
            from fusionrec.stages.runner import run_stage, show

            show(run_stage("register", paths))
    if code:
        raise SystemExit(code)


def _need_source(paths: Paths, params: Params) -> None:
    from fusionrec.errors import ConfigError

    if not (paths.project / params.source.root).is_dir():
        hint = (
            "run `fusionrec demo-data` first"
            if params.source.root == "data/raw/atelier"
            else "point it to the catalogue"
        )
        raise ConfigError(f"source.root: {params.source.root} is not a folder; {hint}")


@app.command()
def register(wait: Annotated[float | None, typer.Option(help="seconds to wait for another run")] = None) -> None:
    """Make sure that a version with this bundle's digest exists in MLflow and is judged (does nothing twice)."""
    from fusionrec.stages.runner import run_stage, show

    show(run_stage("register", _paths(), wait=wait))


@app.command()
def promote(version: Annotated[int | None, typer.Option(help="which version; default: the challenger")] = None) -> None:
    """Compare challenger and champion on common data; move `champion` if it is better, else exit 4."""
    from fusionrec.stages import promote as stage
    from fusionrec.stages.lock import default_wait, project_lock
    from fusionrec.stages.runner import show, write_json

    paths = _paths()
    params = _params(paths)
    with project_lock(paths.home, "promote", default_wait()):
        report = stage.run(params, paths, version=version).as_dict()
    write_json(paths.reports / "promote.json", report)
    show(report)


@app.command()
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

    paths = _paths()
    params = _params(paths)
    with project_lock(paths.home, "tune", default_wait()):
        report = stage.run(params, paths, trials=trials, fresh=not resume, adopt=adopt, minutes=minutes).as_dict()
        write_json(paths.reports / "tune.json", report)
    show(report)


@app.command()
def guard(
    seconds: Annotated[float, typer.Argument(min=0.2, help="with --watch: how often to look")] = 1.0,
    watch: Annotated[bool, typer.Option("--watch", help="keep looking until stopped: --watch SECONDS")] = False,
) -> None:
    """Keep MLflow's alias `champion` on versions that passed the gate; exit 4 if somebody's change was put back."""
    from fusionrec.errors import GateFailed
    from fusionrec.stages import guard as stage

    paths = _paths()
    params = _params(paths)
    stage.through_the_server()
    if watch:
        stage.watch(params, paths, seconds, _say)
        return
    outcome = stage.once(params, paths)
    _say(outcome.text if outcome is not None else "the alias champion is where it was accepted")
    if outcome is not None and outcome.put_back:
        raise GateFailed(outcome.text)


@app.command()
def monitor(
    batch: Annotated[Path, typer.Argument(metavar="BATCH", help="a catalogue folder, as source.root is")],
) -> None:
    """Compare a batch with what the project was built on: what drifted, and who is to blame. Exit 5 on drift."""
    from fusionrec.errors import DriftDetected
    from fusionrec.stages import monitor as stage
    from fusionrec.stages.lock import default_wait, project_lock
    from fusionrec.stages.runner import show, write_json

    paths = _paths()
    params = _params(paths)
    with project_lock(paths.home, "monitor", default_wait()):
        report = stage.run(params, paths, batch).as_dict()
    write_json(paths.reports / "monitor.json", report)
    show(report)
    if report["counts"]["drift"]:
        raise DriftDetected(f"{report['notes'][0]} See {report['links']['report']}")


@app.command()
def check(folder: Annotated[Path, typer.Argument(help="a folder with items and interactions")]) -> None:
    """Look at a catalogue folder as ingest would: found columns, rows, a suggested source section."""
    from fusionrec.data.check import check as look
    from fusionrec.errors import DataRejected

    found = look(folder)
    _say(str(found))
    if not found.ok:
        why = [line.removeprefix("REJECTED ") for line in found.lines if line.startswith("REJECTED ")]
        raise DataRejected("\n".join(why) or "the gate would stop this catalogue")


@app.command()
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
        float, typer.Option(min=0.01, help="a training that takes longer is cut short, and so called")
    ] = 15,
    jobs: Annotated[int, typer.Option(min=1, help="units side by side; the cores are shared out")] = 1,
    missing: Annotated[float, typer.Option(help="share of the (item, modality) cells that is hidden")] = 0.0,
    cold: Annotated[float, typer.Option(help="share of the items that is removed from train")] = 0.0,
    join: Annotated[float, typer.Option(help="join train and validation, hold this share for validation")] = 0.0,
    test_selected: Annotated[
        bool, typer.Option("--test-selected", help="also tell what choosing on the test set would have given")
    ] = False,
    any_code: Annotated[bool, typer.Option("--any-code", help="use stored units of other code too")] = False,
    out: Annotated[Path | None, typer.Option(help="write the results here as JSON")] = None,
) -> None:
    """Compare models on a folder in MMRec's format: chosen on validation, tested once. Run again, it goes on."""
    from fusionrec import cli_bench

    effort = {"trials": trials, "seeds": seeds, "minutes": minutes, "jobs": jobs}
    effort |= {"test_selected": test_selected, "any_code": any_code}
    rules = {"missing": missing, "cold": cold, "join": join}
    found, parts = cli_bench.run(folder, models, spec, out, effort, rules, _say)
    for part, rows in parts.items():
        _table([dict(row) for row in rows], f"{found['set']['name']}: {part}")


@app.command()
def plan() -> None:
    """Before a run: rows per table, what is stale and why, minutes and disk expected."""
    from fusionrec.stages import planning

    paths = _paths()
    params = _params(paths)
    _need_source(paths, params)
    found = planning.plan(params, paths)
    _say("rows: " + ", ".join(f"{name} {count:,}" for name, count in found.rows.items()))
    _table(
        [
            {
                "stage": s.address,
                "state": s.reason or "up to date",
                "minutes": s.minutes if s.reason else None,
                "estimated from": s.basis,
            }
            for s in found.stages
        ]
    )
    _say(f"about {found.minutes:.1f} minutes; up to {found.disk_mib:,.0f} MiB of disk ({found.free_mib:,.0f} MiB free)")


@app.command()
def splits(out: Annotated[Path | None, typer.Option(help="write the results here as JSON")] = None) -> None:
    """Train and test the project's models under random, leave-last-out and global-time splits, side by side."""
    from fusionrec import cli_splits
    from fusionrec.studies.splits import rows_for_people

    paths = _paths()
    found = cli_splits.run(_params(paths), paths, out, _say)
    _table([dict(row) for row in rows_for_people(found)], f"{found['metric']}, all test users, 95 % intervals")
    for line in found["means"]:
        _say(line)


@app.command()
def use(recipe: Annotated[str, typer.Argument(help="a file name in recipes/, without .yaml")]) -> None:
    """Write a recipe to params.yaml; switching back later is a cache checkout."""
    from fusionrec.stages import adopt as adopting
    from fusionrec.stages.lock import default_wait, project_lock

    paths = _paths()
    with project_lock(paths.home, "use", default_wait()):
        adopting.use(paths, recipe)
    _say(f"params.yaml is now the recipe {recipe}; next: fusionrec plan, fusionrec repro")


@app.command()
def adopt(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run id (or its beginning) of an isolated run")],
) -> None:
    """Make an isolated run the project's state: params.yaml, dvc.lock and data."""
    from fusionrec.stages import adopt as adopting
    from fusionrec.stages.lock import default_wait, project_lock

    paths = _paths()
    with project_lock(paths.home, "adopt", default_wait()):
        written = adopting.adopt(paths, run)
    _say(f"wrote {', '.join(written)} and checked out the run's data")


@app.command("demo-data")
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
    from fusionrec import cli_demo as writing

    paths = _paths()
    _say(writing.write(paths, out, seed=seed, items=items, users=users, strengths=_strengths(strength or [])))


@app.command("demo-batch")
def demo_batch(
    kind: Annotated[
        str, typer.Argument(help="none, or what is wrong: darker_pictures, other_language, louder_audio, ...")
    ],
    seed: Annotated[int, typer.Option(min=0, help="another seed, other items")] = 1,
    items: Annotated[int | None, typer.Option(min=20, help="default: the generator's")] = None,
    out: Annotated[Path | None, typer.Option(help="where the batch goes; default data/batches/KIND")] = None,
) -> None:
    """Generate a batch of ten new days of the demo, drifted on request, for `fusionrec monitor`."""
    from fusionrec import cli_demo as writing

    _say(writing.write_batch(_paths(), kind, out, seed=seed, items=items))


def _strengths(pairs: list[str]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            found[name] = float(text)
        except ValueError:
            raise UsageError(f"--strength needs NAME=NUMBER such as text=0, found {pair!r}") from None
    return found


@app.command()
def up() -> None:
    """Start Prefect, MLflow, Evidently and the start page on this machine alone, until Ctrl-C."""
    from flows.up import main as up_main

    raise SystemExit(up_main())


@app.command()
def doctor() -> None:
    """Look for what is wrong or went unnoticed: unregistered bundle, missing weights, lock, versions. Exit 78 on
    failures."""
    from fusionrec.stages.doctor import examine

    found = examine(_paths())
    _table([{"": f.level, "topic": f.topic, "found": f.text} for f in found])
    if any(f.level == "fail" for f in found):
        raise SystemExit(78)


@app.command()
def verify() -> None:
    """Re-hash the cache objects that dvc.lock uses and the embedding store; a flipped bit is named (exit 78)."""
    from fusionrec.stages.verify import verify as run_verify

    found = run_verify(_paths())
    _say(f"{found.files:,} objects, {found.bytes / 2**20:,.1f} MiB: all as recorded")
    for name in found.missing[:10]:
        _say(f"not in the cache: {name} (dvc pull, or fusionrec repro)")


@app.command()
def table(
    markdown: Annotated[bool, typer.Option("--markdown", help="as a Markdown table, for documents")] = False,
) -> None:
    """Print the results of the last evaluation."""
    import json

    from fusionrec.errors import ConfigError
    from fusionrec.evaluation import table as results

    path = _paths().evaluation / "table.json"
    if not path.is_file():
        raise ConfigError(f"{path} is missing: run `fusionrec repro` first")
    tests = path.with_name("tests.json")
    tested = json.loads(tests.read_text(encoding="utf-8")) if tests.is_file() else None
    rows = results.rows_for_people(json.loads(path.read_text(encoding="utf-8")), tested)
    if markdown:
        _say(results.markdown(rows).rstrip())
    else:
        _table([dict(row) for row in rows])
        _say(_gate())


def _gate() -> str:
    """What the gate said about the present bundle, from the verdicts kept in the project."""
    from fusionrec.registry import verdict
    from fusionrec.registry.bundle import read_bundle_json

    paths = _paths()
    name = _params(paths).registry.name
    if not (paths.bundle / "bundle.json").is_file():
        return "gate: no bundle yet"
    found = verdict.of_bundle(paths.home, name, str(read_bundle_json(paths.bundle)["bundle"]))
    if found is None:
        return "gate: not judged yet (fusionrec register)"
    return f"gate: {name} version {found['version']} {found['verdict']}: {verdict.comparison(found)}"


@config_app.command("show")
def config_show() -> None:
    """The resolved parameters, defaults included. params.yaml holds no secrets; environment values that look so are
    hidden."""
    import yaml

    from fusionrec.stages.doctor import without_secrets

    _say(
        yaml.safe_dump(
            without_secrets(_params(_paths()).model_dump(mode="json")), sort_keys=False, allow_unicode=True
        ).strip()
    )


@config_app.command("check")
def config_check(
    file: Annotated[Path | None, typer.Argument(help="default: the project's params.yaml")] = None,
) -> None:
    """Validate a params file; every problem at once, exit 78."""
    from fusionrec import config

    path = file or _paths().project / "params.yaml"
    params = config.load(path)
    _say(f"{path.name} is valid: {params.train.retriever.kind} with {', '.join(params.modalities) or 'no'} modalities")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code (design: 0, 1, 2, 3, 4, 5, 69, 75, 78, 130, 143)."""
    from fusionrec.stages.process import harden, on_sigterm
    from fusionrec.stages.runner import guarded

    harden()
    on_sigterm()
    arguments = sys.argv[1:] if arguments is None else arguments

    def action() -> int:
        try:
            result = app(args=arguments, standalone_mode=False)
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception as error:
            usage = _usage(error)
            if usage is None:
                raise
            raise usage from None
        return result if isinstance(result, int) else 0

    return guarded("cli", action, lambda: _paths().home)


def _usage(error: Exception) -> FusionrecError | None:
    """A mistake on the command line as UsageError with the nearest command; None for anything else."""
    message = getattr(error, "format_message", None)
    if message is None or not hasattr(error, "exit_code"):
        return None
    text = str(message()).strip()
    wrong = text.split("'")[1] if text.startswith("No such command") and "'" in text else None
    if wrong:
        names = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
        near = get_close_matches(wrong, names, 1)
        text = f"no command {wrong!r}" + (f" (did you mean {near[0]!r}?)" if near else "") + "; see fusionrec --help"
    return UsageError(text or "see fusionrec --help")
