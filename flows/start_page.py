"""``python -m flows.start_page``: the start page of ``up``, told by the servers, the files and the doctor."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from flows import environment
from flows.api import Api
from flows.sweep import TAG
from fusionrec.config import load
from fusionrec.errors import FusionrecError, Unavailable
from fusionrec.evaluation import table
from fusionrec.paths import Paths
from fusionrec.registry.bundle import read_bundle_json
from fusionrec.serving import pages
from fusionrec.serving.pages import Card, Document, Fact, Folder, State
from fusionrec.stages import STAGES, doctor, split_address
from fusionrec.stages.process import die_with_parent, harden
from fusionrec.stages.runner import EXTRA

DOCTOR_SECONDS = 300.0
_METRICS = {"ndcg": "NDCG", "recall": "Recall"}
_STATES = {
    "Completed": "已完成", "Failed": "失败", "Crashed": "崩溃", "Cancelled": "已取消", "Cancelling": "取消中",
    "Running": "运行中", "Pending": "等待中",
}  # fmt: skip
_LEVELS = {"COMPLETED": "ok", "FAILED": "fail", "CRASHED": "fail", "CANCELLED": "warn", "CANCELLING": "warn"}


def folders(paths: Paths) -> dict[str, Folder]:
    """What is served besides the start page: name -> folder."""
    return {
        "evaluation": Folder(paths.evaluation),
        "gate": Folder(paths.gate / "docs"),
        "docs": Folder(paths.home / "docs"),
        "monitor": Folder(paths.home / "monitor", scripted="evidently"),
    }


class Page:
    """Puts the page's state together; the doctor looks in a thread of its own, as he needs seconds."""

    def __init__(self, paths: Paths, where: environment.Ports) -> None:
        self.paths, self.where = paths, where
        self.findings: tuple[dict[str, str], ...] = ()
        self.looked = 0.0
        self.looking = threading.Lock()
        self.http = httpx.Client(timeout=3.0, trust_env=False)

    def state(self) -> State:
        """Never raises: what cannot be known says so."""
        if time.monotonic() - self.looked > DOCTOR_SECONDS or not self.looked:
            threading.Thread(target=self.look, daemon=True).start()
        return State(
            project=self.paths.project.name,
            cards=tuple(self.cards()),
            facts=tuple(self.facts()),
            findings=self.findings,
            documents=tuple(documents(self.paths)),
        )

    def look(self) -> None:
        """The doctor's findings but for what the servers tell better; two at a time are one too many."""
        if not self.looking.acquire(blocking=False):
            return
        try:
            found = doctor.examine(self.paths, doctor.LIGHT)
            bad = [f for f in found if f.level != "ok"]
            good = [f for f in found if f.level == "ok"]
            self.findings = tuple({"level": f.level, "topic": f.topic, "text": f.text} for f in [*bad, *good])
            self.looked = time.monotonic()
        finally:
            self.looking.release()

    def cards(self) -> Iterator[Card]:
        for topic, url, health in (
            ("prefect", f"{self.where.prefect_url}/v2/deployments", f"{self.where.prefect_url}/api/health"),
            ("mlflow", self.models_page(), f"{self.where.mlflow_url}/health"),
            ("evidently", self.where.evidently_url, f"{self.where.evidently_url}/api/version"),
        ):
            good = False
            with contextlib.suppress(httpx.HTTPError):
                good = self.http.get(health).status_code == 200
            yield Card(topic, url, urlsplit(url).netloc, good)

    def models_page(self) -> str:
        """MLflow's page of the registered model; of all models where there is none yet."""
        page = "models"
        with contextlib.suppress(FusionrecError, httpx.HTTPError, OSError, ValueError):
            name = load(self.paths.project / "params.yaml").registry.name
            if "registered_model" in self.mlflow("registered-models/get", name=name):
                page = f"models/{quote(name, safe='')}"
        return f"{self.where.mlflow_url}/#/{page}{environment.TRAINING}"

    def facts(self) -> Iterator[Fact]:
        for fact in (self.model, self.registered, self.pipeline, self.stage, self.monitor):
            try:
                yield from fact()
            except (FusionrecError, httpx.HTTPError, OSError, ValueError, KeyError) as error:
                topic = {"registered": "champion"}.get(fact.__name__, fact.__name__)
                yield Fact(topic, (str(error).splitlines() or [type(error).__name__])[0][:200], "warn")

    def model(self) -> Iterator[Fact]:
        params = load(self.paths.project / "params.yaml")
        kinds, names = (
            f"{params.train.retriever.kind} · {params.train.fusion.kind}",
            ", ".join(sorted(params.modalities)),
        )
        yield Fact("model", f"{kinds} · {names or 'no modality'}", zh=f"{kinds} · {names or '无模态'}")

    def registered(self) -> Iterator[Fact]:
        """Champion and challenger with their main metric, and whether the bundle on disk is registered."""
        params = load(self.paths.project / "params.yaml")
        name, metric = params.registry.name, f"{params.evaluate.main_metric}@{params.evaluate.main_k}"
        seen: list[str] = []
        found = {
            alias: self.mlflow("registered-models/alias", name=name, alias=alias).get("model_version")
            for alias in ("champion", "challenger")
        }
        for alias, version in found.items():
            if version is None:
                hint = "fusionrec promote" if alias == "champion" and found["challenger"] else "fusionrec repro"
                level = "warn" if alias == "champion" else "ok"
                yield Fact(alias, f"none yet: `{hint}`", level, zh=f"尚无：`{hint}`")
                continue
            tags = {tag["key"]: tag["value"] for tag in version.get("tags", ())}
            seen.append(tags.get("bundle_digest", ""))
            link = f"{self.where.mlflow_url}/#/models/{name}/versions/{version['version']}{environment.TRAINING}"
            score = self.score(version, metric)
            text = f"version {version['version']} · {_shown(metric)} {score or 'unknown'}"
            yield Fact(alias, text, "ok", link, zh=f"版本 {version['version']} · {_shown(metric)} {score or '未知'}")
        yield from self.bundle(name, seen)

    def score(self, version: dict[str, Any], metric: str) -> str:
        """The main metric with its interval, from the table that was registered with the version; "" without one."""
        run = self.mlflow("runs/get", run_id=version["run_id"]).get("run", {})
        address = urlsplit(run.get("info", {}).get("artifact_uri", ""))
        if address.scheme in ("", "file"):
            file = Path(unquote(address.path)) / "table" / "table.json"
            with contextlib.suppress(OSError, ValueError):
                rows = json.loads(file.read_text(encoding="utf-8"))
                at = {(r["model"], r["slice"], r["metric"]): r for r in rows}
                return table.cell(at.get((table.MAIN, "all", metric)))
        return ""

    def bundle(self, name: str, seen: list[str]) -> Iterator[Fact]:
        if not (self.paths.bundle / "bundle.json").is_file():
            yield Fact("bundle", "none yet; `fusionrec repro` makes it", "warn", zh="尚无；由 `fusionrec repro` 生成")
            return
        digest = read_bundle_json(self.paths.bundle)["bundle"]
        if digest in seen:
            return
        query = f"name = '{name}' and tags.bundle_digest = '{digest}'"
        versions = self.mlflow("model-versions/search", filter=query).get("model_versions", [])
        short = digest[:12]
        if versions:
            number = max(int(v["version"]) for v in versions)
            yield Fact("bundle", f"{short} is version {number}", zh=f"{short} 即版本 {number}")
        else:
            hint = "`fusionrec register`"
            yield Fact("bundle", f"{short} is not registered; {hint}", "warn", zh=f"{short} 尚未注册；{hint}")

    def mlflow(self, path: str, **query: str) -> dict[str, Any]:
        """The answer's JSON, {} where MLflow refuses. Raises Unavailable where it does not answer."""
        try:
            answer = self.http.get(f"{self.where.mlflow_url}/api/2.0/mlflow/{path}", params=query)
        except httpx.HTTPError as error:
            raise Unavailable(f"MLflow at {self.where.mlflow_url} did not answer: {error}") from None
        found: dict[str, Any] = answer.json() if answer.status_code in (200, 404) else {}
        return found

    def pipeline(self) -> Iterator[Fact]:
        yield self.last_run("pipeline")

    def stage(self) -> Iterator[Fact]:
        """The stage that ended last, whichever door it was started through; each leaves a report."""
        if found := last_stage(self.paths):
            address, ended = found
            yield Fact("stage", f"{address} · {when(ended)}")

    def monitor(self) -> Iterator[Fact]:
        """The newest verdict, whichever door it came through."""
        folder = self.paths.home / "monitor"
        verdicts = sorted(folder.glob("*/verdict.json"))  # named by their time
        if not verdicts:
            told = self.how_to_monitor()
            yield Fact("monitor", f"none yet: {told}", "unknown", zh=f"尚无：{told}")
            return
        checked = drift_check(verdicts[-1])
        batch = f"{checked.batch} · {checked.when}"
        link = f"/monitor/{verdicts[-1].parent.name}/report.html"
        yield Fact("monitor", f"{checked.sentence} {batch}", checked.level, link, zh=f"{checked.chinese} {batch}")

    def how_to_monitor(self) -> str:
        """A command that works as it stands, as far as there is one."""
        folder = self.paths.data / "batches"
        known = sorted(f.name for f in folder.iterdir() if f.is_dir() and f.name[0] != ".") if folder.is_dir() else []
        if known:
            return f"`fusionrec monitor data/batches/{known[0]}`"
        if load(self.paths.project / "params.yaml").source.root == "data/raw/atelier":
            return "`fusionrec demo-batch darker_pictures` + `fusionrec monitor data/batches/darker_pictures`"
        return "`fusionrec monitor BATCH`"

    def last_run(self, name: str) -> Fact:
        """The newest run of the deployment ``name``: its state, when, and a link to it."""
        body = {
            "deployments": {"name": {"any_": [name]}, "tags": {"all_": [TAG]}},
            "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}},
            "sort": "START_TIME_DESC", "limit": 1,
        }  # fmt: skip
        with Api(self.where.prefect_url, timeout=3.0) as api:
            found = api.post("/flow_runs/filter", body)
        if not found:
            return Fact(name, "none through Prefect yet", "unknown", zh="尚未通过 Prefect 运行")
        run = found[0]
        state = run["state"] or {}
        rest = f" · {when(run.get('end_time') or run.get('start_time'))}"
        if message := str(state.get("message") or "").splitlines():
            rest += f" · {message[0][:160]}"
        level = "warn" if state.get("name") == "Drifted" else _LEVELS.get(str(state.get("type")), "unknown")
        link = f"{self.where.prefect_url}/v2/runs/flow-run/{run['id']}"
        title = str(state.get("name"))
        return Fact(name, title + rest, level, link, zh=_STATES.get(title, title) + rest)


@dataclass(frozen=True)
class Checked:
    """A drift check as the start page tells it."""

    batch: str
    when: str
    level: str
    sentence: str
    brief: str
    chinese: str


def drift_check(verdict: Path) -> Checked:
    """From a ``verdict.json``. Raises what reading one raises."""
    found = json.loads(verdict.read_text(encoding="utf-8"))
    status, blamed, facts = str(found["status"]), found.get("blamed"), found.get("facts", {})
    words = found.get("sentence") or (found.get("reasons") or [status])[0]
    brief = f"drift in {blamed}" if status == "drift" else status
    chinese = {"drift": f"{blamed} 出现漂移", "no drift": "无漂移", "not computable": "无法计算漂移"}.get(
        status, status
    )
    level = {"drift": "fail", "no drift": "ok"}.get(status, "warn")
    return Checked(str(facts.get("batch", "")), str(facts.get("when", "")), level, str(words), brief, chinese)


def last_stage(paths: Paths) -> tuple[str, float] | None:
    """(address, time) of the newest report of a stage, register and promote among them."""
    known = {*STAGES, *EXTRA}
    found = [
        (file.stat().st_mtime, file.stem)
        for file in paths.reports.glob("*.json") if split_address(file.stem)[0] in known
    ]  # fmt: skip
    return (max(found)[1], max(found)[0]) if found else None


def documents(paths: Paths) -> Iterator[Document]:
    """The saved pages that exist, newest drift report first."""
    for topic, file, url in (
        ("evaluation", paths.evaluation / "report.html", "/evaluation/report.html"),
        ("comparison", paths.home / "docs" / "comparison.html", "/docs/comparison.html"),
        ("gate", paths.gate / "docs" / "index.html", "/gate/"),
        ("data_docs", paths.home / "docs" / "gate" / "index.html", "/docs/gate/"),
    ):
        if file.is_file():
            yield Document(topic, url, when(file.stat().st_mtime))
    folder = paths.home / "monitor"
    for file in sorted(folder.glob("*/report.html"), reverse=True)[:3]:
        about = chinese = ""
        with contextlib.suppress(OSError, ValueError, KeyError):
            checked = drift_check(file.with_name("verdict.json"))
            name = checked.batch.rpartition(" (")[0] or checked.batch
            about, chinese = f"{name}: {checked.brief}", f"{name}：{checked.chinese}"
        url = f"/monitor/{file.relative_to(folder).as_posix()}"
        yield Document("drift", url, when(file.stat().st_mtime), about, chinese)


def when(moment: str | float | None) -> str:
    """A time of an API or a file, as people read it here: local, to the minute."""
    if moment is None:
        return ""
    if isinstance(moment, str):
        at = datetime.fromisoformat(re.sub(r"\.\d+", "", moment).replace("Z", "+00:00"))
    else:
        at = datetime.fromtimestamp(moment, UTC)
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def _shown(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{_METRICS.get(name, name)}@{k}"


def main() -> int:
    harden()
    die_with_parent()
    import uvicorn

    paths, where = environment.find(), environment.ports()
    os.environ.setdefault("DVC_SITE_CACHE_DIR", str(paths.home / "dvc-site"))
    app = pages.create(Page(paths, where).state, folders(paths), where.page)
    uvicorn.run(app, host="127.0.0.1", port=where.page, log_level="warning", timeout_graceful_shutdown=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
