"""Another user of the machine gets nothing out of the hub: 401 on every route, no cookie, no store."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trackd
from trackd_proto.local import hub_client

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")

# Becomes the other user once it is loaded: the interpreter itself may lie where only root can read.
CLIENT = r"""
import http.client, json, os, sys, encodings.idna
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
job = json.load(sys.stdin)
answers = []
for method, path in job["routes"]:
    for headers in job["headers"]:
        connection = http.client.HTTPConnection("127.0.0.1", job["port"], timeout=20)
        body = b"{}" if method in ("POST", "PATCH") else None
        connection.request(method, path, body, {**headers, "Content-Type": "application/json"})
        answer = connection.getresponse()
        answers.append([method, path, answer.status, answer.read().decode("utf-8", "replace")])
        connection.close()
readable = []
for path in job["files"]:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").close()
        readable.append(path)
    except OSError:
        pass
json.dump({"answers": answers, "readable": readable}, sys.stdout)
"""


def as_nobody(job: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", CLIENT],
        input=json.dumps(job), capture_output=True, text=True, cwd="/", timeout=100, check=False,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def all_routes(api: trackd.Api) -> list[tuple[str, str]]:
    with api._client.open("/openapi.json") as response:
        paths = json.loads(response.data)["paths"]
    routes = [(method.upper(), re.sub(r"\{[^}]*\}", "x", path)) for path in paths for method in paths[path]]
    return [*routes, ("GET", "/"), ("GET", "/p/secret"), ("GET", "/api/v1/openapi.json"), ("GET", "/assets/x.js")]


def test_another_user_gets_401_everywhere_and_can_read_nothing(trackd_home: Path) -> None:
    # An open umask and an open parent must not open anything.
    before = os.umask(0)
    try:
        with trackd.init(project="secret", settings={"silent": True}) as run:
            run.log({"loss": 0.5})
            run.finish(wait_s=60)
        api = trackd.Api()
    finally:
        os.umask(before)
    trackd_home.chmod(0o755)
    assert [project.name for project in api.projects()] == ["secret"]
    routes = all_routes(api)
    assert len(routes) > 20
    (cookie,) = trackd_home.glob("*/cookie")
    found = as_nobody({
        "port": int(api.url.rsplit(":", 1)[1]),
        "routes": routes,
        "headers": [
            {},
            {"Accept": "text/html"},
            {"Authorization": "Bearer " + "00" * 32},
            {"Cookie": "trackd_session=x; trackd_session_00000000=x", "X-Trackd-Key": "x"},
        ],
        "files": [
            str(path)
            for path in (
                cookie,
                cookie.parent,
                *cookie.parent.rglob("*"),
                *hub_files(cookie.parent),
            )
        ],
    })  # fmt: skip
    assert len(found["answers"]) == 4 * len(routes)
    wrong = [answer[:3] for answer in found["answers"] if answer[2] != 401]
    assert wrong == []
    assert not [answer[:2] for answer in found["answers"] if "secret" in answer[3] or "loss" in answer[3]]
    assert found["readable"] == []


def hub_files(instance: Path) -> list[Path]:
    """What must be there for the check to mean something."""
    needed = [instance / name for name in ("daemon.json", "store", "wal", "spool")]
    assert all(path.exists() for path in needed)
    return needed


def test_an_impostor_on_the_port_gets_no_token(trackd_home: Path) -> None:
    """A daemon has died without a word, and another user listens on its port."""
    import signal
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from trackd_proto.local import instance, places

    api = trackd.Api()
    published = instance.read_published(places.instance())
    assert published is not None
    port = int(api.url.rsplit(":", 1)[1])
    os.kill(published.pid, signal.SIGKILL)
    while (Path("/proc") / str(published.pid)).exists():
        os.sched_yield()
    seen: list[dict[str, str]] = []

    class Impostor(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(200)
            self.send_header("X-Trackd-Proof", "00" * 32)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    HTTPServer.allow_reuse_address = True
    with HTTPServer(("127.0.0.1", port), Impostor) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(hub_client.HubAuthError, match="nothing was sent"):
                hub_client.HubClient.find()
        finally:
            server.shutdown()
            thread.join()
    assert len(seen) == 1 and "Authorization" not in seen[0]
