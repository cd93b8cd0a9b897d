"""The start page: what it shows, what it serves, and what it keeps to itself."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fusionrec.serving import pages
from fusionrec.serving.pages import Card, Document, Fact, Folder, State
from fusionrec.serving.words import WORDS

PORT = 8123
HOSTILE = "\"><script>alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "project" / "data" / "evaluation"
    (root / "deep").mkdir(parents=True)
    (root / "report.html").write_text("<h1>report</h1>", encoding="utf-8")
    (root / "deep" / "index.html").write_text("<h1>推荐</h1>", encoding="utf-8")
    (root / ".hidden.html").write_text("hidden", encoding="utf-8")
    (root / "per_user.parquet").write_bytes(b"pseudonyms")
    (tmp_path / "project" / "secret.html").write_text("secret", encoding="utf-8")
    (root / "way-out.html").symlink_to(tmp_path / "project" / "secret.html")
    (root / "out").symlink_to(tmp_path / "project", target_is_directory=True)
    return root


@pytest.fixture
def client(folder: Path) -> TestClient:
    state = State(
        project=f"shop {HOSTILE}",
        cards=(
            Card("prefect", "http://127.0.0.1:4200", "127.0.0.1:4200", True),
            Card("mlflow", "http://127.0.0.1:5000"),
        ),
        facts=(Fact("champion", f"version 3 {HOSTILE}", "warn", "http://127.0.0.1:5000/#/models"),),
        findings=({"level": "fail", "topic": "weights", "text": HOSTILE},),
        documents=(Document("evaluation", "/evaluation/report.html", "2026-01-02 03:04"),),
    )
    folders = {"evaluation": Folder(folder), "monitor": Folder(folder, scripted="deep")}
    return TestClient(pages.create(lambda: state, folders, PORT), base_url=f"http://127.0.0.1:{PORT}")


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_links_to_everything_and_a_hostile_name_stays_text(client: TestClient, language: str) -> None:
    answer = client.get("/", params={"lang": language})
    found = _Elements(answer.text).found
    assert {"a", "img", "link"} <= {tag for tag, _ in found} and "script" not in {tag for tag, _ in found}
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]
    assert {a["src"] for tag, a in found if tag == "img"} == {"/static/mark.svg"}
    links = {a["href"] for tag, a in found if tag == "a"}
    assert {"http://127.0.0.1:4200", "http://127.0.0.1:5000", "/evaluation/report.html"} <= links
    assert WORDS["state"][language == "zh"] in answer.text and f'lang="{language}"' in answer.text


def test_facts_and_reports_speak_the_pages_language_and_stay_text() -> None:
    state = State(
        "shop",
        facts=(Fact("bundle", "none yet", zh=f"尚无 {HOSTILE}"), Fact("model", "ease")),
        findings=({"level": "ok", "topic": "lock", "text": "no run is active"},),
        documents=(Document("drift", "/monitor/x", about="dark: drift", zh="dark：漂移"), Document("gate", "/gate/")),
    )
    english, mandarin = (pages.renderer()(state, language) for language in ("en", "zh"))
    assert (
        "none yet" in english and "dark: drift" in english and "no run is active" in english and "尚无" not in english
    )
    assert "none yet" not in mandarin and "dark：漂移" in mandarin and "没有正在进行的运行" in mandarin
    assert "ease" in mandarin and WORDS["gate_about"][1] in mandarin and "<script" not in mandarin


def test_every_word_is_there_in_both_languages() -> None:
    assert all(len(pair) == 2 and all(pair) for pair in WORDS.values())


@pytest.mark.parametrize("path", ["/", "/health", "/static/start.css", "/evaluation/report.html", "/nothing", "/x/y/z"])
def test_security_headers(client: TestClient, path: str) -> None:
    """S15: no inline script, no sniffing, no framing, no referrer, for pages and errors alike."""
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "script" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"


def test_saved_pages_are_sandboxed(client: TestClient) -> None:
    inert = client.get("/evaluation/report.html").headers["content-security-policy"]
    assert inert.startswith("sandbox;") and "allow" not in inert
    assert client.get("/monitor/report.html").headers["content-security-policy"] == inert
    scripted = client.get("/monitor/deep/").headers["content-security-policy"]
    assert scripted.startswith("sandbox allow-scripts;") and "allow-same-origin" not in scripted
    assert "connect-src" not in scripted and "default-src 'none'" in scripted, "a script can ask nobody"


def test_folders_and_index(client: TestClient) -> None:
    assert client.get("/evaluation/report.html").text == "<h1>report</h1>"
    deep = client.get("/evaluation/deep/")
    assert "推荐" in deep.text and deep.headers["content-type"] == "text/html; charset=utf-8"
    assert client.head("/evaluation/report.html").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/evaluation/../secret.html", "/evaluation/..%2f..%2fsecret.html", "/evaluation/%2e%2e/%2e%2e/secret.html",
        "/evaluation/deep/../../../secret.html", "/evaluation//etc/passwd", "/evaluation/%2fetc%2fpasswd",
        "/evaluation/..%5c..%5csecret.html", "/evaluation/report.html%00.png", "/evaluation/.hidden.html",
        "/evaluation/way-out.html", "/evaluation/out/secret.html", "/evaluation/per_user.parquet", "/evaluation/deep",
        "/evaluation/", "/evaluation", "/static/../pages.py", "/static/..%2fpages.py", "/params.yaml",
        "/.fusionrec/x.html",
    ],
)  # fmt: skip
def test_nothing_else_can_be_read(client: TestClient, path: str) -> None:
    """S13: traversal, absolute paths, links that lead out, hidden files and types that are not pages."""
    answer = client.get(path)
    assert answer.status_code == 404 and "secret" not in answer.text and "root:" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/evaluation/report.html"])
def test_it_only_reads(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 405


def test_another_host_or_origin_is_refused(client: TestClient) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    answer = client.get("/", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
