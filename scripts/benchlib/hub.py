"""Asking the hub from inside a probe."""

import json
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

from trackd_proto.auth import http_token
from trackd_proto.local.hub_client import HubClient, HubError, run_path

PATIENCE_S = 120.0


def client(cookie: str = "") -> HubClient:
    """The hub of this home (or the separate one whose cookie file this is), waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return HubClient.find(upstream_cookie=cookie)
        except (HubError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def post(asked: HubClient, path: str, question: dict[str, Any]) -> bytes:
    """The raw answer of the embedded hub to POST, over a connection of its own."""
    cookie = cookie_of(Path(os.environ["TRACKD_HOME"]))
    assert cookie is not None
    headers = {
        "Authorization": f"Bearer {http_token(bytes.fromhex(cookie.read_text()))}",
        "Content-Type": "application/json",
    }
    request = urllib.request.Request(f"{asked.url}/api/v1{path}", json.dumps(question).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: bytes = answer.read()
    return body


def wait_for_rows(asked: HubClient, run: Any, key: str, count: int) -> None:
    """Returns when the hub's answer about `key` counts that many values. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            keys = asked.get(run_path(run.project, run.id) + "/keys")["keys"]
        except HubError:
            keys = []
        seen = next((entry["count"] for entry in keys if entry["key"] == key), 0)
        if seen >= count:
            return
        time.sleep(0.01)
    raise TimeoutError(f"the hub has {seen} of {count} values of {key} after {PATIENCE_S:.0f} s")


def cookie_of(home: Path) -> Path | None:
    """The cookie file of the daemon of a home, once there is one."""
    return next(iter(home.glob("*/cookie")), None)
