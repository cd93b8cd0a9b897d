"""S09, S19, S20, S21, S26: what the image is made of, and what its first script refuses. No container engine needed."""

from __future__ import annotations

import os
import re
import runpy
import secrets
import shutil
import stat
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from fusionrec.stages.process import TELEMETRY_OFF
from tests.docker import dockerfile

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
TEXT = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
BEFORE, STAGES = dockerfile.stages(TEXT)
TARGETS = ("cpu", "cuda")
FROM_LOCK = {"venv-cuda": "runtime.lock", "venv-cpu": "runtime-cpu.lock", "venv": "build.lock"}
GOOD = secrets.token_hex(24)


def test_the_parser_reads_what_builders_read() -> None:
    before, found = dockerfile.stages(
        "# comment\nARG A=1\nfrom ${A} as one\nRUN --mount=type=secret,id=x a \\\n  # inside\n\n  b\n"
        'FROM one AS two\nENV X=1 \\\n    Y="2 3"\nCMD ["a", "b c"]\n'
    )
    assert [i.text for i in before] == ["A=1"]
    assert list(found) == ["one", "two"] and found["two"].base == "one"
    assert found["one"].instructions == [dockerfile.Instruction("RUN", ("--mount=type=secret,id=x",), "a b")]
    assert dockerfile.environment(dockerfile.shipped(found, "two")) == {"X": "1", "Y": "2 3"}
    assert found["two"].all("CMD")[0].listed == ["a", "b c"]
    assert [i.word for i in dockerfile.shipped(found, "two")] == ["RUN", "ENV", "CMD"]


def test_the_targets_share_everything_but_torch() -> None:
    for target in TARGETS:
        assert STAGES[target].base == "runtime"
        assert [(i.word, i.flags, i.text) for i in STAGES[target].instructions] == [
            ("COPY", (f"--from=venv-{target}",), "/opt/venv /opt/venv"),
            ("COPY", ("--from=code",), "/stage /"),
        ]
    assert list(STAGES)[-1] == "cuda"  # the one a build without --target makes needs no argument


def test_the_base_is_one_argument_with_a_tag() -> None:
    assert [(i.word, i.text) for i in BEFORE] == [("ARG", "BASE=docker.io/library/python:3.11-slim-bookworm")]
    assert {s.base for s in STAGES.values()} - set(STAGES) == {"${BASE}"}
    assert "latest" not in TEXT


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_is_not_root_and_starts_in_exec_form(target: str) -> None:
    shipped = dockerfile.shipped(STAGES, target)
    users = [i.text for i in shipped if i.word == "USER"]
    assert users == ["10001:10001"]
    after = shipped[[i.word for i in shipped].index("USER") :]
    assert "RUN" not in {i.word for i in after}
    entry, command, check = (next(i for i in shipped if i.word == w) for w in ("ENTRYPOINT", "CMD", "HEALTHCHECK"))
    assert entry.listed == ["/usr/bin/tini", "-g", "--", "/bin/sh", "/opt/fusionrec/docker/entrypoint"]
    assert command.listed == ["fusionrec", "--help"]
    assert check.text.startswith("CMD [") and check.text.endswith('"/opt/fusionrec/docker/health.py"]')
    run = " ".join(i.text for i in shipped if i.word == "RUN")
    assert "groupadd --gid 10001" in run and "useradd --uid 10001 --gid 10001" in run
    assert "install -d -o 10001 -g 10001 -m 0700 /project" in run
    assert next(i.text for i in shipped if i.word == "WORKDIR") == "/project"


@pytest.mark.parametrize("target", TARGETS)
def test_no_build_tools_and_no_caches_are_shipped(target: str) -> None:
    shipped = dockerfile.shipped(STAGES, target)
    runs = [i.text for i in shipped if i.word == "RUN"]
    installed = {
        w
        for run in runs
        for m in re.findall(r"apt-get install -y --no-install-recommends ([^&]*)", run)
        for w in m.split()
    }
    assert installed == {"tini"}
    assert all("rm -rf /var/lib/apt/lists/*" in run for run in runs if "apt-get" in run)
    assert not any(re.search(r"\bpip\b|gcc|build-essential|curl|wget|git\b", run) for run in runs)
    copied = [i for i in shipped if i.word == "COPY"]
    assert all(any(f.startswith("--from=") for f in i.flags) for i in copied)  # only from stages


def test_nothing_is_fetched_by_url_and_no_secret_is_an_argument() -> None:
    everything = [*BEFORE, *(i for s in STAGES.values() for i in s.instructions)]
    assert "ADD" not in {i.word for i in everything}
    assert not re.search(r"https?://", TEXT)
    names = [i.text.partition("=")[0] for i in everything if i.word == "ARG"]
    assert sorted(names) == ["BASE", "TORCHVISION_SHA256", "TORCH_INDEX", "TORCH_SHA256"]
    words = [*names, *(k for s in STAGES.values() for k in dockerfile.environment(s.instructions))]
    assert not [w for w in words if re.search(r"PASSWORD|SECRET|TOKEN|KEY|AUTH|CREDENTIAL", w)]
    installs = [i for i in everything if i.word == "RUN" and re.search(r"-m pip|torch-cpu", i.text)]
    reaching_out = [i for i in installs if "--no-index" not in i.text]
    assert len(reaching_out) == 4  # setuptools, the two locks, torch for CPUs
    for run in reaching_out:
        assert run.flags == ("--mount=type=secret,id=pip,target=/etc/pip.conf",)


def test_every_package_is_installed_from_the_repositorys_lock_by_its_hash() -> None:
    assert STAGES["locks"].all("COPY")[0].text.split()[:-1] == [
        "pyproject.toml", "requirements.lock", "requirements-cpu.lock", "docker/locks.py",
    ]  # fmt: skip
    for name, stage in STAGES.items():
        installs = [i.text for i in stage.all("RUN") if "-m pip" in i.text and "--no-index" not in i.text]
        assert len(installs) == (name in FROM_LOCK)
        for install in installs:
            words = install.split()
            assert {"--no-deps", "--require-hashes", "--only-binary"} <= {*words}
            assert [w for w in words if w.endswith(".lock")] == [f"/locks/{FROM_LOCK[name]}"]
            assert words[words.index("--only-binary") + 1] == ":all:"
            # source packages run code while they are built: each is named, and built with the lock's setuptools
            assert [b for a, b in pairwise(words) if a == "--no-binary"] in ([], ["antlr4-python3-runtime"])
            assert ("--no-binary" in words) == ("--no-build-isolation" in words)
            assert any(i.text.startswith(f"/locks/{FROM_LOCK[name]} ") for i in stage.all("COPY"))
    project = [i.text for i in STAGES["code"].all("RUN") if "--no-index" in i.text]
    assert len(project) == 1 and "--no-deps --no-index --no-build-isolation -e /opt/fusionrec" in project[0]


def test_the_code_comes_after_the_packages() -> None:
    """A change of the code must not install 300 packages again."""
    for name in ("locks", "venv-cuda", "venv-cpu"):
        words = " ".join(i.text for i in STAGES[name].all("COPY"))
        assert not re.search(r"\bsrc\b|\bflows\b|\. \.", words)
    assert [i.flags for i in STAGES["cuda"].all("COPY")] == [("--from=venv-cuda",), ("--from=code",)]


@pytest.mark.parametrize("target", TARGETS)
def test_the_environment_is_quiet_offline_and_without_pickle(target: str) -> None:
    environment = dockerfile.environment(dockerfile.shipped(STAGES, target))
    assert {k: environment.get(k) for k in TELEMETRY_OFF} == TELEMETRY_OFF
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["HOME"] == "/tmp" and environment["PREFECT_HOME"].startswith("/project/")  # noqa: S108
    assert environment["PATH"].split(":")[0] == "/opt/venv/bin"


def test_what_the_image_copies_exists_and_the_builder_may_see_it() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    needed = {
        word
        for stage in STAGES.values()
        for copy in stage.all("COPY") if not any(f.startswith("--from=") for f in copy.flags)
        for word in copy.text.split()[:-1]
    }  # fmt: skip
    assert needed == allowed
    assert [name for name in sorted(needed) if not (ROOT / name).exists()] == []
    assert not [name for name in allowed if re.match(r"\.fusionrec|\.git$|data|\.venv|docker/\.env", name)]
    assert "**/.env" in rules and rules.index("**/.env") > max(rules.index("!" + a) for a in allowed)


def test_the_project_in_the_image_is_complete() -> None:
    """What the entry script lays out and what the pipeline reads is copied."""
    copied = {w.rstrip("/") for copy in STAGES["code"].all("COPY") for w in copy.text.split()[:-1]}
    script = (DOCKER / "entrypoint").read_text()
    laid_out = {w for words in re.findall(r"for name in ([^;]+);", script) for w in words.split()} | {
        "params.yaml",
        ".dvc/config",
        ".dvc/plots",
    }
    assert laid_out <= copied
    from fusionrec.stages.isolated import _COPIED

    assert set(_COPIED) - {"dvc.lock"} <= laid_out
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {package["readme"], *package["license-files"]} <= copied


def test_the_lock_of_the_image_is_the_repositorys_without_development_tools() -> None:
    script = runpy.run_path(str(DOCKER / "locks.py"))
    made = script["prepare"](ROOT)
    for name, source in (("runtime.lock", "requirements.lock"), ("runtime-cpu.lock", "requirements-cpu.lock")):
        whole = script["entries"]((ROOT / source).read_text(encoding="utf-8"))
        assert "".join(whole.values()) == (ROOT / source).read_text(encoding="utf-8")  # the reader loses nothing
        kept = script["entries"](made[name])
        assert {n: whole[n] for n in kept} == kept
        assert not {"pytest", "hypothesis", "ruff", "mypy"} & set(kept)
        wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        assert {script["canonical"](r) for r in wanted} - set(kept) <= {"torch", "torchvision"}
    assert {"torch", "torchvision"} <= set(script["entries"](made["runtime.lock"]))
    assert {"flask-wtf", "wtforms"} <= set(script["entries"](made["runtime-cpu.lock"]))  # MLflow's basic auth
    assert list(script["entries"](made["build.lock"])) == ["setuptools"]
    pins = made["torch.txt"].split()
    assert pins == [re.search(rf"^{n}==\S+", made["runtime.lock"], re.M)[0] for n in ("torch", "torchvision")]  # type: ignore[index]


def wheel_index(folder: Path) -> str:
    """A local package index with two tiny wheels in place of torch and torchvision, in the lock's versions."""
    import zipfile

    pins = runpy.run_path(str(DOCKER / "locks.py"))["prepare"](ROOT)["torch.txt"].split()
    for pin in pins:
        name, _, version = pin.partition("==")
        place = folder / name
        place.mkdir(parents=True)
        wheel = place / f"{name}-{version}+cpu-py3-none-any.whl"
        info = f"{name}-{version}+cpu.dist-info"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(f"{name}/__init__.py", "")
            file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}+cpu\n")
            file.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            file.writestr(f"{info}/RECORD", "")
        (place / "index.html").write_text(f'<a href="{wheel.name.replace("+", "%2B")}">{wheel.name}</a>')
    (folder / "torch.txt").write_text("".join(pin + "\n" for pin in pins))
    return folder.as_uri()


def torch_cpu(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    bin_ = Path(sys.executable).parent
    return subprocess.run(
        ["/bin/sh", str(DOCKER / "torch-cpu"), str(folder / "torch.txt")],
        capture_output=True,
        text=True,
        env={
            "PATH": f"{folder / 'bin'}:{bin_}:/usr/bin:/bin",
            "HOME": str(folder),
            "PIP_CONFIG_FILE": os.devnull,
            "TARGET_PYTHON": str(folder / "venv" / "bin" / "python"),
            **environment,
        },
    )


def test_the_cpu_target_holds_torch_to_the_given_sha256(tmp_path: Path) -> None:
    index = wheel_index(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    lacking = torch_cpu(tmp_path)
    assert lacking.returncode == 78 and "TORCH_INDEX" in lacking.stderr
    first = torch_cpu(tmp_path, TORCH_INDEX=index)
    told = dict(re.findall(r"--build-arg (TORCH\w*_SHA256)=([0-9a-f]{64})", first.stderr))
    assert first.returncode == 78 and set(told) == {"TORCH_SHA256", "TORCHVISION_SHA256"}
    swapped = torch_cpu(
        tmp_path, TORCH_INDEX=index, TORCH_SHA256=told["TORCHVISION_SHA256"], TORCHVISION_SHA256=told["TORCH_SHA256"]
    )
    assert swapped.returncode not in (0, 78) and "DO NOT MATCH THE HASHES" in swapped.stderr
    site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    assert list(site.iterdir()) == []
    good = torch_cpu(tmp_path, TORCH_INDEX=index, **told)
    assert good.returncode == 0, good.stderr
    assert {p.name for p in site.iterdir() if p.suffix != ".dist-info"} >= {"torch", "torchvision"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder that stands for /opt/fusionrec."""
    code = tmp_path / "opt"
    for name in ("src", "flows", "recipes"):
        (code / name).mkdir(parents=True)
    (code / ".dvc").mkdir()
    for name in ("dvc.yaml", "prefect.yaml", "requirements.lock", ".dvcignore", "params.yaml", ".dvc/config"):
        shutil.copy(ROOT / name, code / name)
    shutil.copytree(ROOT / ".dvc" / "plots", code / ".dvc" / "plots")
    shutil.copytree(DOCKER, code / "docker")
    return code


def enter(code: Path, project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    project.mkdir(exist_ok=True)
    return subprocess.run(
        ["/bin/sh", str(DOCKER / "entrypoint"), *command],
        cwd=project,
        capture_output=True,
        text=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "FUSIONREC_CODE": str(code), **environment},
    )


def test_an_empty_project_is_laid_out_privately(image: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    done = enter(image, project, "python", "-c", "import os; print(os.umask(63)); open('made', 'w').close()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "63\n", "")
    assert {p.name: os.readlink(p) for p in project.iterdir() if p.is_symlink()} == {
        n: str(image / n) for n in ("src", "flows", "recipes")
    }
    assert stat.S_IMODE((project / "made").stat().st_mode) == 0o600
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", ".dvc/config"):
        assert (project / name).read_bytes() == (ROOT / name).read_bytes()
    assert {f.name for f in (project / ".dvc/plots").iterdir()} == {f.name for f in (ROOT / ".dvc/plots").iterdir()}


def test_what_people_wrote_stays_and_the_codes_files_follow_the_image(image: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    assert enter(image, project, "python", "-c", "0").returncode == 0
    (project / "params.yaml").write_text("mine")
    (project / ".dvc" / "config").write_text("mine")
    (project / "dvc.yaml").write_text("of an older image")
    assert enter(image, project, "python", "-c", "0").returncode == 0
    assert (project / "params.yaml").read_text() == (project / ".dvc" / "config").read_text() == "mine"
    assert (project / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert not list(project.glob("*.tmp"))


@pytest.mark.parametrize("name", ["src", "flows", "recipes"])
def test_a_checkout_is_refused(name: str, image: Path, tmp_path: Path) -> None:
    (tmp_path / "project" / name).mkdir(parents=True)
    done = enter(image, tmp_path / "project", "python", "-c", "print('ran')")
    assert (done.returncode, done.stdout) == (78, "")
    assert f"its own {name}" in done.stderr
    assert [p.name for p in (tmp_path / "project" / name).iterdir()] == []


MLFLOW = ("mlflow", "server", "--app-name", "basic-auth")
SERVERS = [
    (("prefect", "server", "start"), "PREFECT_SERVER_API_AUTH_STRING", {}),
    (MLFLOW, "MLFLOW_AUTH_ADMIN_PASSWORD", {"MLFLOW_FLASK_SERVER_SECRET_KEY": GOOD}),
    (MLFLOW, "MLFLOW_FLASK_SERVER_SECRET_KEY", {"MLFLOW_AUTH_ADMIN_PASSWORD": GOOD}),
]
WEAK = ["", "tiny7", "changeme", "changeme-changeme-changeme", "Password12345678", "0" * 32, "password1234"]


@pytest.mark.parametrize("weak", WEAK)
@pytest.mark.parametrize("command, name, others", SERVERS)
def test_no_server_starts_with_a_weak_secret(
    command: tuple[str, ...], name: str, others: dict[str, str], weak: str, image: Path, tmp_path: Path
) -> None:
    """S02: exit 78 before the command runs, the name in the message and the value not."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / command[0]).write_text("#!/bin/sh\necho started\n")
    (tools / command[0]).chmod(0o755)
    path = f"{tools}:/usr/bin:/bin"
    value = f"user:{weak}" if weak and name.endswith("AUTH_STRING") else weak
    done = enter(image, tmp_path / "project", *command, **others, **{name: value}, PATH=path)
    assert (done.returncode, done.stdout) == (78, "")
    assert name in done.stderr and (not weak or weak not in done.stderr)
    good = f"user:{GOOD}" if name.endswith("AUTH_STRING") else GOOD
    assert enter(image, tmp_path / "project", *command, **others, **{name: good}, PATH=path).stdout == "started\n"


def test_an_auth_string_without_a_user_and_mlflow_without_auth_are_refused(image: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    one = enter(image, project, "prefect", "server", "start", PREFECT_SERVER_API_AUTH_STRING=GOOD)
    two = enter(image, project, "mlflow", "server", "--port", "1", MLFLOW_AUTH_ADMIN_PASSWORD=GOOD)
    assert (one.returncode, two.returncode) == (78, 78)
    assert "user:password" in one.stderr and "--app-name basic-auth" in two.stderr


def test_the_prefect_server_finds_its_folder(image: Path, tmp_path: Path) -> None:
    """Its sqlite file lies two folders deep in an empty volume, and Prefect makes one."""
    tools, home = tmp_path / "bin", tmp_path / "project" / ".fusionrec" / "prefect"
    tools.mkdir()
    (tools / "prefect").write_text('#!/bin/sh\n: > "$PREFECT_HOME/prefect.db"\n')
    (tools / "prefect").chmod(0o755)
    given = {"PREFECT_SERVER_API_AUTH_STRING": f"user:{GOOD}", "PREFECT_HOME": str(home)}
    done = enter(image, tmp_path / "project", "prefect", "server", "start", PATH=f"{tools}:/usr/bin:/bin", **given)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(home.stat().st_mode) == 0o700 and (home / "prefect.db").is_file()


def test_signals_reach_the_command_itself(image: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; signal.signal(15, lambda *a: sys.exit(7));"
        "print(os.getpid(), flush=True); signal.pause()"
    )
    (tmp_path / "project").mkdir()
    child = subprocess.Popen(
        ["/bin/sh", str(DOCKER / "entrypoint"), sys.executable, "-c", program],
        cwd=tmp_path / "project",
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "FUSIONREC_CODE": str(image)},
    )
    assert child.stdout is not None and int(child.stdout.readline()) == child.pid  # exec: no shell in between
    child.terminate()
    assert child.wait(20) == 7
    child.stdout.close()


def test_the_health_check_asks_its_own_server_only() -> None:
    import http.server
    import threading

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"

    def code(address: str) -> int:
        check = [sys.executable, "-I", str(DOCKER / "health.py")]
        return subprocess.run(check, env={"FUSIONREC_HEALTH_URL": address}, capture_output=True).returncode

    try:
        assert [code(a) for a in ("", f"{url}/health", f"{url}/other")] == [0, 0, 1]
    finally:
        server.shutdown()
        server.server_close()
    assert code(f"{url}/health") == 1  # nobody listens any more
    assert code("http://localhost.example/health") == 1
    assert code("file:///etc/passwd") == 1


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_image_builds_and_runs(tmp_path: Path) -> None:
    """The cuda target with buildah, then the program in it. Needs buildah, the base image, the package index, 35 GB."""
    if shutil.which("buildah") is None:
        pytest.skip("buildah is missing: apt install buildah")
    storage = os.environ.get("BUILDAH_OPTIONS", "").split()
    call = ["buildah", *storage]
    base = BEFORE[0].text.partition("=")[2]
    if subprocess.run([*call, "pull", "--policy", "missing", base], capture_output=True).returncode:
        pytest.skip(f"{base} is not here and cannot be pulled")
    name = f"fusionrec-test:{secrets.token_hex(4)}"
    options = os.environ.get("BUILDAH_BUILD_OPTIONS", "--isolation chroot --format docker").split()
    build = [*call, "build", *options, "-f", "docker/Dockerfile", "--target", "cuda", "-t", name, "."]
    subprocess.run(build, cwd=ROOT, check=True)
    container = ""
    try:
        container = subprocess.run([*call, "from", name], capture_output=True, text=True, check=True).stdout.strip()
        inside = [*call, "run", "--isolation", "chroot", container, "--", "/bin/sh", "/opt/fusionrec/docker/entrypoint"]
        program = "import os, fusionrec; print(os.getuid(), os.getgid(), fusionrec.__file__)"
        done = subprocess.run([*inside, "python", "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["10001", "10001", "/opt/fusionrec/src/fusionrec/__init__.py"]
        done = subprocess.run([*inside, "fusionrec", "--help"], capture_output=True, text=True, check=True)
        assert "repro" in done.stdout
    finally:
        if container:
            subprocess.run([*call, "rm", container], capture_output=True)
        subprocess.run([*call, "rmi", name], capture_output=True)
