"""The start page of ``fusionrec up``, and the saved reports it links to.

Nothing here asks the outside: templates, style and pictures are the package's own. Saved pages are served with a
sandboxing policy, because titles and column names in them come from whoever wrote the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from fusionrec.serving.hosts import NAMES, App, OwnOrigin, Receive, Scope, Send
from fusionrec.serving.words import WORDS, chinese

HERE = Path(__file__).parent
OWN = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
INERT = "sandbox; default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
# Evidently's saved pages draw with scripts. Without allow-same-origin and without any source to connect to, a hostile
# string that becomes a script reaches no cookie, no server and no dialog.
SCRIPTED = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
}  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """Files below ``root`` are served, those of :data:`TYPES` alone, with ``policy`` as their CSP; in folders called
    ``scripted`` with :data:`SCRIPTED`."""

    root: Path
    policy: str = INERT
    scripted: str | None = None

    def policy_of(self, path: str) -> str:
        return SCRIPTED if self.scripted in PurePosixPath(path).parts[:-1] else self.policy


@dataclass(frozen=True)
class Card:
    """A link to another door: ``topic`` names its texts in words.py, ``state`` is one line, ``good`` None: unknown."""

    topic: str
    url: str
    state: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Fact:
    """A line about the project: ``topic`` names its label, ``level`` is ok, warn or fail, ``link`` leads on; ``zh`` is
    the text in Chinese, where it holds words."""

    topic: str
    text: str
    level: str = "ok"
    link: str | None = None
    zh: str = ""


@dataclass(frozen=True)
class Document:
    """A saved page: ``topic`` names its texts, ``when`` is its time for people; ``about`` and ``zh`` say of this very
    page what the topic's text says of all."""

    topic: str
    url: str
    when: str = ""
    about: str = ""
    zh: str = ""


@dataclass(frozen=True)
class State:
    """Everything the start page shows."""

    project: str
    cards: tuple[Card, ...] = ()
    facts: tuple[Fact, ...] = ()
    findings: tuple[Mapping[str, str], ...] = field(default_factory=tuple)
    documents: tuple[Document, ...] = ()


def create(state: Callable[[], State], folders: Mapping[str, Folder], port: int, names: tuple[str, ...] = NAMES) -> App:
    """The app: ``/`` the start page, ``/<name>/<path>`` the files of ``folders``, ``/health``, ``/static/``."""
    render = renderer()

    def start(request: Request) -> Response:
        return HTMLResponse(render(state(), "zh" if request.query_params.get("lang") == "zh" else "en"))

    def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    def static(request: Request) -> Response:
        return _file(Folder(HERE / "static", OWN), request.path_params["name"])

    def saved(request: Request) -> Response:
        folder = folders.get(request.path_params["folder"])
        return _missing() if folder is None else _file(folder, request.path_params["path"])

    routes = [
        Route("/", start),
        Route("/health", health),
        Route("/static/{name}", static),
        Route("/{folder}/{path:path}", saved),
    ]
    return OwnOrigin(Headers(Starlette(routes=routes)), port, names)


class Headers:
    """ASGI middleware: the headers that every answer of ours carries, unless it brings its own."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, sending)


HEADERS = {
    "Content-Security-Policy": OWN,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def below(root: Path, path: str) -> Path | None:
    """The regular file at ``path`` below ``root``, None for anything else: ``..``, hidden names, links that lead out,
    types that are not served."""
    parts = PurePosixPath(path).parts
    if not parts or "\\" in path or "\0" in path or any(p.startswith((".", "/")) for p in parts):
        return None
    try:
        file = root.joinpath(*parts).resolve(strict=True)
        inside = file.is_relative_to(root.resolve(strict=True)) and file.is_file()
    except (OSError, RuntimeError):
        return None
    return file if inside and file.suffix.lower() in TYPES else None


def _file(folder: Folder, path: str) -> Response:
    path = path + "index.html" if path.endswith("/") or not path else path
    file = below(folder.root, path)
    if file is None:
        return _missing()
    headers = {"Content-Security-Policy": folder.policy_of(path)}
    return FileResponse(file, media_type=TYPES[file.suffix.lower()], headers=headers)


def _missing() -> Response:
    return PlainTextResponse("nothing here; the start page links to what there is: /\n", status_code=404)


def renderer() -> Callable[[State, str], str]:
    """-> (state, language) -> the page; every value is escaped."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": _code, "chinese": chinese}
    template = environment.get_template("start.html")

    def render(state: State, language: str) -> str:
        words = {key: pair[1 if language == "zh" else 0] for key, pair in WORDS.items()}
        return template.render(state=state, words=words, language=language)

    return render


def _code(text: str) -> Markup:
    """Escaped text in which `commands` between backticks are set as code."""
    parts = [escape(part) for part in str(text).split("`")]
    if len(parts) % 2 == 0:  # an odd backtick is just a character
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else p for n, p in enumerate(parts))
