"""Prefect's HTTP API without importing Prefect (four seconds): what ``up`` and the start page ask of it."""

from __future__ import annotations

import os
import time
from typing import Any

import httpx

from fusionrec.errors import Unavailable

AUTH = "PREFECT_API_AUTH_STRING"
_CLIENT = "fusionrec"


class Api:
    """Calls to ``url``/api with Prefect's CSRF token where it wants one; waits out a busy database (503)."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        user, _, password = os.environ.get(AUTH, "").partition(":")
        self.http = httpx.Client(
            base_url=f"{url}/api", timeout=timeout, trust_env=False, auth=(user, password) if user else None
        )
        self.token: str | None = None

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: Any) -> Any:
        """The answer's JSON. Raises Unavailable where the server does not answer or refuses."""
        headers: dict[str, str] = {}
        for _ in range(50):
            try:
                if method != "GET" and self.token:
                    headers = {"Prefect-Csrf-Token": self.token, "Prefect-Csrf-Client": _CLIENT}
                answer = self.http.request(method, path, json=body, headers=headers)
                if answer.status_code == 403 and "csrf" in answer.text.lower() and not self.token:
                    self.token = self.http.get("/csrf-token", params={"client": _CLIENT}).json()["token"]
                    continue
            except httpx.HTTPError as error:
                raise Unavailable(f"Prefect at {self.http.base_url} did not answer: {error}") from None
            if answer.status_code == 503:
                time.sleep(0.2)
                continue
            if answer.is_error:
                raise Unavailable(f"Prefect said {answer.status_code} to {method} {path}: {answer.text[:200]}")
            return answer.json() if answer.content else None
        raise Unavailable(f"Prefect at {self.http.base_url} is too busy for {method} {path}")
