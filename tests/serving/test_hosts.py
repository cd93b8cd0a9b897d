"""S05: requests that name another host or come from another site's page do not reach a server on loopback."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fusionrec.serving.hosts import OwnOrigin

PORT = 4173
OWN = f"http://127.0.0.1:{PORT}"


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})


def ask(kind: str = "http", method: str = "GET", host: str | None = f"127.0.0.1:{PORT}", **headers: str) -> Any:
    """The first message that the guarded app sends."""
    pairs = [] if host is None else [(b"host", host.encode())]
    pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "method": method, "headers": pairs, "path": "/api"}
    asyncio.run(OwnOrigin(_app, PORT)(scope, receive, send))
    return sent[0]


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}"])
def test_its_own_names_are_welcome(host: str) -> None:
    assert ask(host=host)["status"] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", f"evil.example:{PORT}", f"127.0.0.1.evil.example:{PORT}", "127.0.0.1", "127.0.0.1:4174", "",
        None, f"127.0.0.1:{PORT}@evil.example", f"[::1]:{PORT}", f"0.0.0.0:{PORT}",
    ],
)  # fmt: skip
def test_any_other_host_is_refused(host: str | None) -> None:
    assert ask(host=host)["status"] == 403


def test_two_host_headers_are_refused() -> None:
    pairs = [(b"host", f"127.0.0.1:{PORT}".encode()), (b"host", b"evil.example")]
    assert OwnOrigin(_app, PORT).refusal({"headers": pairs, "method": "GET"}) is not None


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1:4173", ""]
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_another_sites_page_is_refused(origin: str, kind: str) -> None:
    message = ask(kind, "POST", origin=origin)
    assert message.get("status") == 403 or message == {
        "type": "websocket.close", "code": 1008, "reason": "another site's page may not talk to this server",
    }  # fmt: skip


def test_its_own_pages_and_programs_are_welcome() -> None:
    assert ask(method="POST", origin=OWN)["status"] == 200
    assert ask("websocket", origin=OWN)["type"] == "websocket.accept"
    assert ask("websocket")["type"] == "websocket.accept", "a program sends no origin"


def test_a_link_on_another_site_opens_a_page_and_nothing_more() -> None:
    assert ask(sec_fetch_site="cross-site", sec_fetch_mode="navigate")["status"] == 200
    assert ask(sec_fetch_site="cross-site", sec_fetch_mode="no-cors")["status"] == 403
    assert ask(method="POST", sec_fetch_site="cross-site", sec_fetch_mode="navigate")["status"] == 403
    assert ask(sec_fetch_site="same-origin", sec_fetch_mode="cors")["status"] == 200
