"""Shared by all tests: no telemetry, no developer's settings, skips that can be refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything is imported: several libraries read these once. make exports the same; bare `pytest` is as quiet.
os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DVC_NO_ANALYTICS="1",
    GX_ANALYTICS_ENABLED="false",
    RAY_USAGE_STATS_ENABLED="0",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="90",
)
for name in ("FUSIONREC_HOME", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "DVC_STAGE", "DVC_ROOT"):
    os.environ.pop(name, None)  # a developer's settings are not part of a test

from fusionrec.threads import wait_briefly  # noqa: E402  (after the environment)

wait_briefly()  # as the command line does: tests run side by side

from hypothesis import HealthCheck, settings  # noqa: E402  (after the environment)

settings.register_profile(
    "fusionrec",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "40")),
)
settings.load_profile("fusionrec")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def umask() -> Iterator[None]:
    """Restore the umask after a test that sets it."""
    before = os.umask(0o077)
    os.umask(before)
    yield
    os.umask(before)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Nightly tests say why they do not run."""
    if os.environ.get("NIGHTLY") != "1":
        skip = pytest.mark.skip(reason="nightly: needs the network or an hour; set NIGHTLY=1 (make test-nightly)")
        for item in items:
            if item.get_closest_marker("nightly"):
                item.add_marker(skip)


TOGETHER = ("tests/e2e/",)
"""Folders whose files share a fixture that takes minutes: one process runs them, so that it is made once."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`-n`: a file at a time, and a folder of :data:`TOGETHER` at a time."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))

    return Scheduling(config, log)


def _refused(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_ALL=1 and this was not run: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """REQUIRE_ALL=1 turns a skip into a failure."""
    report = yield
    if os.environ.get("REQUIRE_ALL") == "1":
        _refused(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """The same for a module that skips itself as a whole."""
    report = yield
    if os.environ.get("REQUIRE_ALL") == "1":
        _refused(report)
    return report
