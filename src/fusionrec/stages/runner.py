"""Runs one stage the same way through every door, and says in one line what went wrong.

The last line on stderr of a failed stage is ``fusionrec: exit <code> (<what>): <cause>``; Prefect, the command line
and people all read that line.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusionrec.data.files import write_bytes
from fusionrec.errors import FusionrecError, UsageError
from fusionrec.paths import Paths
from fusionrec.stages import STAGES, Stage, split_address
from fusionrec.stages.lock import default_wait, project_lock
from fusionrec.stages.process import Terminated, die_with_parent, harden, on_sigterm, private_home

LABELS = {
    1: "bug", 2: "usage", 3: "data rejected", 4: "gate failed", 5: "drift", 69: "unavailable", 75: "busy",
    78: "configuration", 130: "interrupted", 143: "terminated",
}  # fmt: skip
LAST_LINE = re.compile(r"fusionrec: exit (\d+) \([^)]*\): (.*)")
EXTRA = ("register", "promote")  # stages outside DVC's pipeline
SHARED = ("train",)  # stages that several processes of torchrun may run together


def run_stage(address: str, paths: Paths, modality: str | None = None, wait: float | None = None) -> dict[str, Any]:
    """Run one stage in this process under the project's lock; returns its report as a dict and writes it to disk.

    ``address`` may be ``embed@text``. Under torchrun process 0 alone takes the lock and writes; the others wait for
    it. Raises what the stage raises, UsageError for an unknown stage or modality, and Busy.
    """
    name, in_address = split_address(address)
    modality = modality or in_address or _modality_from_dvc(name)
    stage = stage_of(name)
    from fusionrec import config
    from fusionrec.recommenders.devices import together, world  # its package reads every model's file

    params = config.load(paths.project / "params.yaml")
    if stage.per_modality:
        if modality not in params.modalities:
            known = ", ".join(sorted(params.modalities)) or "none"
            raise UsageError(f"{name} needs --modality, one of those in params.yaml: {known} (found {modality!r})")
    elif modality:
        raise UsageError(f"{name} takes no modality (found {modality!r})")
    full = f"{name}@{modality}" if modality else name
    private_home(paths.home)
    rank, size = world()
    if size > 1 and name not in SHARED:
        raise UsageError(f"torchrun started {size} processes; {name} runs in one: fusionrec run {name}")
    with together(project_lock(paths.home, f"stage {full}", default_wait() if wait is None else wait)):
        if name == "train" and rank == 0:
            prune_embeddings(paths, set(params.modalities))
        start = time.monotonic()
        report = stage.function()(params, paths, **({"modality": modality} if modality else {})).as_dict()
        report["seconds"] = {**report["seconds"], "total": round(time.monotonic() - start, 3)}
        report["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        if rank == 0:
            write_json(_reports(paths) / f"{full}.json", report)
    return report


def _reports(paths: Paths) -> Path:
    """An isolated run's reports stay with it; they would spoil the main one's estimates."""
    run = os.environ.get("FUSIONREC_RUN", "")
    return paths.home / "runs" / run / "reports" if re.fullmatch(r"[A-Za-z0-9-]{1,64}", run) else paths.reports


def stage_of(name: str) -> Stage:
    """The stage called ``name``; UsageError with the nearest name where there is none."""
    if name in STAGES:
        return STAGES[name]
    if name in EXTRA:
        return Stage(name, ("registry",), (), ())
    from difflib import get_close_matches

    near = get_close_matches(name, [*STAGES, *EXTRA], 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UsageError(f"unknown stage {name!r}{hint}; stages are {', '.join([*STAGES, *EXTRA])}")


def _modality_from_dvc(name: str) -> str | None:
    """DVC names the running stage in its environment; so no parameter is ever part of a shell command."""
    stage, modality = split_address(os.environ.get("DVC_STAGE", ""))
    return modality if stage == name else None


def prune_embeddings(paths: Paths, modalities: set[str]) -> list[str]:
    """Remove matrices of modalities that params.yaml no longer names: train depends on the whole folder.

    They stay in DVC's cache, so switching back is a checkout.
    """
    gone = []
    if paths.embeddings.is_dir():
        for folder in sorted(paths.embeddings.iterdir()):
            if folder.is_dir() and not folder.is_symlink() and folder.name not in modalities:
                shutil.rmtree(folder)
                gone.append(folder.name)
    return gone


def write_json(path: Path, value: Any) -> None:
    """Atomic JSON: sorted keys, indent 1, final newline."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1) + "\n"
    write_bytes(path, text.encode("utf-8"))


def guarded(what: str, action: Callable[[], Any], home: Callable[[], Path] | None = None) -> int:
    """Run ``action`` as a program's main: exit code out, one-line cause as the last line on stderr.

    An integer that ``action`` returns is the exit code. A bug's traceback goes to ``<home>/logs/<what>.log``.
    """
    try:
        result = action()
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except FusionrecError as error:
        return fail(error.exit_code, str(error))
    except KeyboardInterrupt:
        return fail(130, "stopped by SIGINT")
    except Terminated:
        return fail(143, "stopped by SIGTERM")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        where = _keep_traceback(what, home)
        text = next(iter(str(error).strip().splitlines()), "")
        cause = f"{type(error).__name__}: {text}" if text else type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:
            cause += _disk(error)
        print(f"the traceback is in {where}", file=sys.stderr)  # noqa: T201
        return fail(1, cause)


def fail(code: int, message: str) -> int:
    """Print what the message says after its first line and, last, the line that names the exit code and holds the
    first; returns the code.

    A list of problems under a heading is printed whole, so that it can be read in its order.
    """
    lines = message.strip().splitlines() or ["no message"]
    listed = len(lines) > 1 and lines[0].endswith(":")
    first = f"{lines[0]} {lines[1].strip()}" if listed else lines[0]
    for line in lines if listed else lines[1:]:
        print(line, file=sys.stderr)  # noqa: T201
    print(f"fusionrec: exit {code} ({LABELS.get(code, 'error')}): {first}", file=sys.stderr, flush=True)  # noqa: T201
    return code


def _disk(error: OSError) -> str:
    """For a full disk: which path and how many bytes are free."""
    import errno

    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ""
    folder = Path(error.filename).parent if error.filename else Path.cwd()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return f" ({error.filename or folder}: {shutil.disk_usage(folder).free} bytes free)"


def _keep_traceback(what: str, home: Callable[[], Path] | None) -> str:
    text = traceback.format_exc()
    try:
        if home is None:
            raise OSError("no home")
        log = private_home(home()) / "logs" / f"{what}.log"
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {what}\n{text}\n")
        return str(log)
    except (OSError, FusionrecError):
        sys.stderr.write(text)
        return "the lines above"


def main(address: str, modality: str | None = None, wait: float | None = None) -> int:
    """``fusionrec run``: harden, tie to the parent, run, show the report."""
    from fusionrec.recommenders.devices import world

    harden()
    on_sigterm()
    rank, size = world()
    if "DVC_STAGE" in os.environ or size > 1:
        die_with_parent()
    if size > 1:  # read when torch is imported; DDP warns in every process that no parameter was unused
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    found: list[Paths] = []

    def action() -> None:
        paths = Paths.find()
        found.append(paths)
        report = run_stage(address, paths, modality, wait)
        if rank == 0:
            show(report)

    return guarded(address.replace("/", "_"), action, lambda: found[0].home if found else Paths.find().home)


def show(report: dict[str, Any]) -> None:
    """The report as a table on the terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
    seconds = report["seconds"].get("total", sum(report["seconds"].values()))  # a command's report has no total
    facts = Table(title=f"{report['stage']}  {seconds:.1f} s", title_justify="left", show_header=False)
    for key, value in report["counts"].items():
        facts.add_row(escape(str(key)), f"{value:,}" if isinstance(value, int) else f"{value:,.4g}")
    for key, value in report["seconds"].items():
        if key != "total":
            facts.add_row(f"{escape(str(key))} (s)", f"{value:.1f}")
    for key, value in report["links"].items():
        facts.add_row(escape(str(key)), escape(str(value)))
    console.print(facts)
    rows = report["table"]
    if rows:
        table = Table()
        for column in rows[0]:
            table.add_column(
                escape(str(column)), justify="right" if isinstance(rows[0][column], (int, float)) else "left"
            )
        for row in rows:
            table.add_row(*(f"{v:.4f}" if isinstance(v, float) else escape(str(v)) for v in row.values()))
        console.print(table)
    for note in report["notes"]:
        console.print(escape(note))
