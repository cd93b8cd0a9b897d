"""S01, S02, S05, S19, S20, S29: what compose.yaml publishes, allows and demands. Runs without a container engine."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
TEXT = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = ("PREFECT_AUTH_STRING", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?+])([^}]*))?\}")
BIN = Path(sys.executable).parent

each = pytest.mark.parametrize("name", SERVICES)


def resolved(value: Any, given: dict[str, str]) -> Any:
    """What Compose makes of a value: ``${X}``, ``${X:-default}`` and ``${X:?message}`` (KeyError without X)."""
    if isinstance(value, dict):
        return {k: resolved(v, given) for k, v in value.items()}
    if isinstance(value, list):
        return [resolved(v, given) for v in value]
    if not isinstance(value, str):
        return value

    def one(match: re.Match[str]) -> str:
        name, sign, rest = match.groups()
        if given.get(name):
            return given[name]
        if sign == ":-":
            return str(rest)
        raise KeyError(name)

    return VARIABLE.sub(one, value)


@each
def test_a_service_is_locked_down(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    for key in ("privileged", "network_mode", "pid", "ipc", "devices", "userns_mode", "env_file"):
        assert key not in service
    assert all(mount.startswith("/tmp:") and "nosuid" in mount and "size=" in mount for mount in service["tmpfs"])  # noqa: S108
    assert [mount.rpartition(":")[2] for mount in service["volumes"]] == ["/project"]
    assert "/var/run/docker.sock" not in TEXT


@each
def test_a_service_has_limits_and_a_health_check(name: str) -> None:
    limits = resolved(SERVICES[name]["deploy"]["resources"]["limits"], {})
    assert 0 < float(limits["cpus"]) <= 16
    assert re.fullmatch(r"\d+(\.\d+)?[mg]", limits["memory"])
    assert 16 <= limits["pids"] <= 4096
    check = SERVICES[name]["healthcheck"]
    assert check["test"] == ["CMD", "/opt/venv/bin/python", "-I", "/opt/fusionrec/docker/health.py"]
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    asked = SERVICES[name]["environment"].get("FUSIONREC_HEALTH_URL", "")
    assert asked.startswith("http://127.0.0.1:") or (name == "guard" and not asked)  # it has no server
    assert SERVICES[name]["logging"]["options"]["max-size"]


@each
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", resolved(port, {})), port
        assert port.startswith("127.0.0.1:")  # no variable can change the address


def test_worker_and_guard_are_on_the_inner_network_alone() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    door = COMPOSE["networks"]["door"]["driver_opts"]
    assert door["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert door["com.docker.network.bridge.host_binding_ipv4"] == "127.0.0.1"
    for name, service in SERVICES.items():
        assert service["networks"] == (["inside", "door"] if service.get("ports") else ["inside"]), name
    assert {n for n, s in SERVICES.items() if "ports" in s} == {"prefect", "mlflow"}


def test_each_service_waits_for_what_it_needs() -> None:
    assert SERVICES["worker"]["depends_on"] == {n: {"condition": "service_healthy"} for n in ("prefect", "mlflow")}
    assert SERVICES["guard"]["depends_on"] == {"worker": {"condition": "service_healthy"}}  # it lays out the project
    environment = SERVICES["worker"]["environment"]
    assert SERVICES["guard"]["environment"].items() <= environment.items()
    ports = {n: SERVICES[n]["ports"][0].rpartition(":")[2] for n in ("prefect", "mlflow")}
    assert environment["PREFECT_API_URL"] == f"http://prefect:{ports['prefect']}/api"
    assert environment["MLFLOW_TRACKING_URI"] == f"http://mlflow:{ports['mlflow']}"
    for name, port in ports.items():
        assert SERVICES[name]["environment"]["FUSIONREC_HEALTH_URL"].startswith(f"http://127.0.0.1:{port}/")


def test_volumes_are_named_and_the_servers_have_their_own() -> None:
    used = {n: resolved(s["volumes"], {})[0].partition(":")[0] for n, s in SERVICES.items()}
    assert used == {"prefect": "prefect", "mlflow": "mlflow", "worker": "project", "guard": "project"}
    assert set(used.values()) == set(COMPOSE["volumes"])
    assert resolved(SERVICES["worker"]["volumes"], {"FUSIONREC_PROJECT": "/srv/shop"}) == ["/srv/shop:/project"]


def test_the_image_is_this_version_by_a_target_of_the_dockerfile() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    dockerfile = (DOCKER / "Dockerfile").read_text()
    for given, target in (({}, "cuda"), ({"FUSIONREC_TARGET": "cpu"}, "cpu")):
        for service in SERVICES.values():
            found = resolved({k: service[k] for k in ("image", "build")}, given)
            assert found["image"] == f"fusionrec:{version}-{target}"
            assert found["build"]["target"] == target and re.search(rf"^FROM \S+ AS {target}$", dockerfile, re.M)
            arguments = set(re.findall(r"^ARG (\w+)", dockerfile, re.M))
            assert set(found["build"]["args"]) == arguments
            assert (
                DOCKER / found["build"]["context"] / found["build"]["dockerfile"]
            ).resolve() == DOCKER / "Dockerfile"
    assert "latest" not in TEXT


def test_a_secret_has_no_default_and_occurs_nowhere_in_clear() -> None:
    """S02, S19: Compose itself stops where one is unset or empty."""
    uses: dict[str, list[str | None]] = {}
    for name, sign, _ in VARIABLE.findall(TEXT):
        uses.setdefault(name, []).append(sign)
    for name in SECRETS:
        assert uses.pop(name) and all(f"${{{name}:?" in t for t in re.findall(rf"\$\{{{name}[^}}]*\}}", TEXT))
    assert {sign for signs in uses.values() for sign in signs} == {":-"}
    for service in SERVICES.values():
        for key, value in service["environment"].items():
            if re.search(r"PASSWORD|SECRET|AUTH_STRING|TOKEN", key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), key
        assert not re.search(r"\$\{(" + "|".join(SECRETS) + ")", str(service["command"]))  # arguments show in `ps`
        assert not re.search(r"PASSWORD|SECRET|AUTH", str(service["build"]))
    with pytest.raises(KeyError):
        resolved(SERVICES, dict.fromkeys(SECRETS, ""))
    assert resolved(SERVICES, dict.fromkeys(SECRETS, "x"))


def test_the_example_lists_every_secret_with_an_empty_value() -> None:
    lines = [line for line in (DOCKER / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == [f"{name}=" for name in SECRETS]
    ignored = subprocess.run(["git", "check-ignore", "-q", "docker/.env"], cwd=ROOT).returncode
    assert ignored == 0
    tracked = subprocess.run(["git", "ls-files", "docker"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "docker/.env\n" not in tracked


def test_prefect_and_mlflow_let_nobody_in_without_a_password() -> None:
    prefect, mlflow = (SERVICES[n]["environment"] for n in ("prefect", "mlflow"))
    assert prefect["PREFECT_SERVER_API_AUTH_STRING"].startswith("${PREFECT_AUTH_STRING:?")
    assert prefect["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert prefect["PREFECT_SERVER_UI_STATIC_DIRECTORY"].startswith("/tmp/")  # noqa: S108  (its default is read-only)
    origins = resolved(prefect["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"], {"FUSIONREC_PREFECT_PORT": "4321"}).split(",")
    assert origins == ["http://127.0.0.1:4321", "http://localhost:4321"]
    command = resolved(SERVICES["mlflow"]["command"], {})
    assert command[command.index("--app-name") + 1] == "basic-auth"
    hosts = next(a for a in command if a.startswith("--allowed-hosts=")).partition("=")[2].split(",")
    assert hosts == ["mlflow:5000", "127.0.0.1:*", "localhost:*"]
    assert next(a for a in command if a.startswith("--cors-allowed-origins=")).count("*") == 0
    assert mlflow["MLFLOW_AUTH_CONFIG_PATH"] == "/opt/fusionrec/docker/mlflow-auth.ini"
    pattern = re.compile(mlflow["MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX"])
    assert pattern.search("models:/m-0123") and not pattern.search("/etc") and not pattern.search("file:///etc")
    import configparser

    ini = configparser.ConfigParser()
    ini.read(DOCKER / "mlflow-auth.ini")
    assert ini["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    assert "admin_password" not in ini["mlflow"] and ini["mlflow"]["database_uri"].startswith("sqlite:////project/")


def _options(command: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in command if word.startswith("--")}


@pytest.mark.slow
@each
def test_every_command_exists_with_its_options(name: str) -> None:
    """Asked of the real programs: a renamed option or module would only show when the container starts."""
    command = resolved(SERVICES[name]["command"], {})
    if command[:2] == ["python", "-m"]:
        program = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
        assert subprocess.run([sys.executable, "-c", program, command[2]], cwd=ROOT).returncode == 0
        return
    words = [w for w in command if not w.startswith("-")]
    path = words[: 3 if words[0] == "prefect" else 2]
    done = subprocess.run([BIN / path[0], *path[1:], "--help"], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert {o for o in _options(command) if o not in done.stdout} == set()


@pytest.mark.slow
def test_every_prefect_variable_is_a_setting_of_prefect() -> None:
    names = {k for s in SERVICES.values() for k in s["environment"] if k.startswith("PREFECT_")}
    code = (
        "import sys; from prefect.settings import Settings; from prefect.settings.legacy import _get_settings_fields;"
        "print([n for n in sys.argv[1:] if n not in _get_settings_fields(Settings)])"
    )
    done = subprocess.run([sys.executable, "-c", code, *sorted(names)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def secrets_file(folder: Path, **changed: str) -> Path:
    file = folder / ".env"
    done = subprocess.run(["/bin/sh", str(DOCKER / "secrets"), str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    for name, value in changed.items():
        text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.M)
    file.write_text(text)
    return file


def start(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "ENV_FILE": str(file), "COMPOSE": "echo compose"}
    return subprocess.run(
        ["/bin/sh", str(DOCKER / "start"), *arguments], capture_output=True, text=True, env=environment
    )


def test_secrets_are_random_private_and_made_once(tmp_path: Path) -> None:
    values = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        file = secrets_file(tmp_path / str(number))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        found = dict(line.split("=", 1) for line in file.read_text().splitlines())
        assert list(found) == list(SECRETS)
        values += [v.rpartition(":")[2] for v in found.values()]
    assert len(set(values)) == 6 and all(re.fullmatch(r"[0-9a-f]{48}", v) for v in values)
    before = file.read_text()
    again = subprocess.run(["/bin/sh", str(DOCKER / "secrets"), str(file)], capture_output=True, text=True)
    assert again.returncode == 78 and file.read_text() == before
    assert [p.name for p in file.parent.iterdir()] == [".env"]
    assert all(v not in again.stdout + again.stderr for v in values)


def test_start_hands_a_good_file_to_compose(tmp_path: Path) -> None:
    file = secrets_file(tmp_path)
    done = start(file, "--build", "-d")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "compose",
        "--env-file",
        str(file),
        "-f",
        str(DOCKER / "compose.yaml"),
        "up",
        "--build",
        "-d",
    ]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "value", ["", "changeme", "user:short", "user:changeme-changeme-changeme", "admin:passwordpassword"]
)
def test_start_refuses_weak_secrets(name: str, value: str, tmp_path: Path) -> None:
    done = start(secrets_file(tmp_path, **{name: value}))
    assert (done.returncode, done.stdout) == (78, "")
    assert name in done.stderr and (not value or value not in done.stderr)


def test_start_refuses_a_missing_or_public_file(tmp_path: Path) -> None:
    missing = start(tmp_path / ".env")
    assert missing.returncode == 78 and "sh docker/secrets" in missing.stderr
    file = secrets_file(tmp_path)
    file.chmod(0o640)
    public = start(file)
    assert public.returncode == 78 and "chmod 600" in public.stderr
    copied = tmp_path / "copied"
    copied.write_bytes((DOCKER / ".env.example").read_bytes())
    copied.chmod(0o600)
    assert start(copied).returncode == 78


def test_the_page_about_containers_names_what_exists() -> None:
    """Its commands need a container engine, so each block says that it is not run; files and options must exist."""
    page = (DOCKER / "README.md").read_text(encoding="utf-8")
    fences = re.findall(r"(<!-- not run: .+ -->\n)?```bash\n(.*?)```", page, re.S)
    assert fences and all(mark for mark, _ in fences)
    named = set(re.findall(r"docker/[\w.-]+", page))
    assert {"docker/secrets", "docker/start", "docker/Dockerfile"} <= named
    assert [n for n in named if n != "docker/.env" and not (ROOT / n.rstrip(".")).exists()] == []
    arguments = set(re.findall(r"--build-arg (\w+)", page))
    assert arguments <= set(re.findall(r"^ARG (\w+)", (DOCKER / "Dockerfile").read_text(), re.M))
