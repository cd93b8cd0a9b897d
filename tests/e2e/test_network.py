"""S26: the demo in a network namespace with loopback only, and what it connects to (``make test-faults``).

A small demo; with FUSIONREC_WHOLE_DEMO=1 the whole one, which takes as long as ``make demo``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import lay_out

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

CALL = re.compile(r"^(?:\[pid\s+\d+\]\s*|\d+\s+)?(?:\d[\d:.]*\s+)?(?:connect|sendto|sendmsg)\(")
FAMILY = re.compile(r"sa_family=AF_(\w+)")
ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
ALLOWED = {"UNIX", "NETLINK", "INET", "INET6", "UNSPEC"}

UP = """
import fcntl, socket, struct, sys, os
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    request = struct.pack('16sh14s', b'lo', 0x1 | 0x40, b'')  # IFF_UP | IFF_RUNNING
    fcntl.ioctl(s, 0x8914, request)  # SIOCSIFFLAGS
os.execvp(sys.argv[1], sys.argv[1:])
"""


def strangers(trace: str) -> list[str]:
    """Lines of an strace output that name an address family or an address other than loopback."""
    found = []
    for line in trace.splitlines():
        if not CALL.match(line) or not (family := FAMILY.search(line)):
            continue
        where = ADDRESS.search(line)
        if family[1] not in ALLOWED or (
            family[1].startswith("INET") and where and not _inside(ipaddress.ip_address(where[1] or where[2]))
        ):
            found.append(line[:200])
    return found


def _inside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_loopback or address.is_unspecified


def test_the_reader_of_traces_sees_strangers() -> None:
    trace = (
        '12 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("8.8.8.8")}, 16) = -1\n'
        '12 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0\n'
        '12 connect(3, {sa_family=AF_INET6, sin6_port=htons(1), inet_pton(AF_INET6, "2001:db8::1", &x)}, 28) = -1\n'
        '12 connect(3, {sa_family=AF_INET6, sin6_port=htons(1), inet_pton(AF_INET6, "::1", &x)}, 28) = 0\n'
        '12 connect(4, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0\n'
    )
    assert len(strangers(trace)) == 2


def test_the_demo_runs_without_a_network_and_asks_for_none(tmp_path: Path) -> None:
    for tool in ("unshare", "strace"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces cannot be made here")
    project = lay_out(tmp_path / "demo")
    trace = tmp_path / "trace"
    inside = ["unshare", "-rn", sys.executable, "-c", UP]
    watched = ["strace", "-f", "-qq", "-s", "0", "-e", "trace=connect,sendto,sendmsg", "-e", "signal=none"]
    watched += ["-o", str(trace)]
    size = [] if os.environ.get("FUSIONREC_WHOLE_DEMO") else ["--items", "120", "--users", "200"]
    steps = (
        ["fusionrec", "demo-data", *size],
        ["fusionrec", "repro"],
        ["flows.pipeline"],
    )
    for step in steps:
        done = subprocess.run(
            [*inside, *watched, sys.executable, "-m", *step],
            cwd=project.folder,
            env={**project.environment, "PYTHONUNBUFFERED": "1"},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, f"{step}:\n{(done.stdout + done.stderr)[-4000:]}"
        text = trace.read_text(errors="replace")
        assert strangers(text) == []
        if step[0] == "flows.pipeline":
            assert "connect(" in text, "the flow's own server is reached through loopback: the trace must show it"
    assert os.path.getsize(project.folder / "data/evaluation/report.html") > 10_000
