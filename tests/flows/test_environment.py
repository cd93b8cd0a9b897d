"""S02 and the ports: what `up` takes from the environment, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows import environment
from fusionrec.errors import ConfigError
from fusionrec.paths import Paths


@pytest.mark.parametrize("name", environment.SECRETS)
@pytest.mark.parametrize(
    "value",
    ["", "changeme", "ChangeMe", "password", "password1234!", "aaaaaaaaaaaaaaaa", "short", "admin", "            "],
)
def test_a_secret_that_anyone_would_guess_is_refused_without_showing_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"admin:{value}" if "AUTH_STRING" in name else value)
    with pytest.raises(ConfigError, match=name) as error:
        environment.refuse_weak_secrets()
    assert len(value.strip()) < 8 or value == "password" or value not in str(error.value)
    assert error.value.exit_code == 78


def test_a_good_secret_reaches_servers_and_clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "shop:kU8s-93hf_Qw7Zp1")
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "0f8a77c1b2e94d55")
    made = environment.servers(Paths(tmp_path, tmp_path / ".fusionrec"), environment.ports())
    assert made["PREFECT_API_AUTH_STRING"] == "shop:kU8s-93hf_Qw7Zp1"


def test_no_secret_is_needed_and_the_generated_one_is_private_and_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in environment.SECRETS:
        monkeypatch.delenv(name, raising=False)
    paths = Paths(tmp_path, tmp_path / ".fusionrec")
    first, second = (environment.servers(paths, environment.ports())["EVIDENTLY_SECRET"] for _ in range(2))
    assert first == second and len(first) >= 32
    assert (paths.keys / "evidently.txt").stat().st_mode & 0o777 == 0o600
    assert paths.keys.stat().st_mode & 0o777 == 0o700
    other = environment.servers(Paths(tmp_path, tmp_path / "other"), environment.ports())["EVIDENTLY_SECRET"]
    assert other != first


def test_ports_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (environment.PREFECT_PORT, environment.MLFLOW_PORT, environment.EVIDENTLY_PORT, environment.PAGE_PORT):
        monkeypatch.delenv(name, raising=False)
    assert environment.ports() == environment.Ports(4200, 5000, 8000, 8080)
    monkeypatch.setenv(environment.PAGE_PORT, "4200")
    with pytest.raises(ConfigError, match="FUSIONREC_PAGE_PORT and FUSIONREC_PREFECT_PORT are both 4200"):
        environment.ports()
    for bad in ("", "0", "65536", "http", "80 80", "٤٢"):
        monkeypatch.setenv(environment.PAGE_PORT, bad)
        with pytest.raises(ConfigError, match="must be a port"):
            environment.ports()


def test_telemetry_is_off_and_other_sites_are_out_for_every_child(tmp_path: Path) -> None:
    """S26, S05."""
    from fusionrec.stages.process import TELEMETRY_OFF

    where = environment.Ports(4201, 5001, 8001, 8081)
    made = environment.servers(Paths(tmp_path, tmp_path / ".fusionrec"), where)
    assert {name: made[name] for name in TELEMETRY_OFF} == TELEMETRY_OFF
    assert made["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4201,http://localhost:4201"
    assert made["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert (
        made["PREFECT_RESULTS_DEFAULT_SERIALIZER"] == "json" and made["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    )
    assert os.environ.get("PREFECT_SERVER_CSRF_PROTECTION_ENABLED") != "true", "only children are told"
