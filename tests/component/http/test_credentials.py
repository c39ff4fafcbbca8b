"""Every route refuses who has no credential; the rules of tickets, sessions, hosts and origins."""

import base64
import hashlib
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.fake_store import BASE, COOKIE
from trackd_daemon.http.auth import SESSION_S, TICKET_S, Auth
from trackd_proto.auth import NONCE_HEADER, PROOF_HEADER, http_proof, http_token

DOCS = Path(__file__).parents[3] / "docs" / "http-api.md"
PAGES = ["/", "/index.html", "/p/x", "/assets/app-1a2b.js", "/nothing", "/api/v1/openapi.json", "/api/nothing", "/docs"]


def all_routes(app: FastAPI) -> list[tuple[str, str]]:
    found = [
        (method.upper(), re.sub(r"\{[^}]*\}", "x", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    return found + [("GET", page) for page in PAGES]


def browser(app: FastAPI, auth: Auth) -> tuple[TestClient, str]:
    """A client with a session's cookie, and the key that belongs to it."""
    client = TestClient(app, base_url=BASE)
    answer = client.post("/api/v1/session", json={"ticket": auth.issue_ticket()}, headers={"Origin": BASE})
    assert answer.status_code == 200
    return client, answer.json()["key"]


def test_every_documented_route_exists(app: FastAPI) -> None:
    documented = {
        re.sub(r"\?.*", "", path)
        for path in re.findall(r"`(?:GET|POST|PATCH|DELETE) (/api/v1/[^`\s]*)", DOCS.read_text())
    }
    assert documented == set(app.openapi()["paths"])


def test_every_route_refuses_strangers(app: FastAPI, nobody: TestClient) -> None:
    routes = all_routes(app)
    assert len(routes) > 25
    other = http_token(b"another user's cookie, 32 bytes..")
    for headers in (
        {},
        {"Authorization": f"Bearer {other}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {http_token(COOKIE)}"},
        {"Cookie": "trackd_session=x", "X-Trackd-Key": "x"},
        {"X-Trackd-Key": "x"},
    ):
        for method, path in routes:
            answer = nobody.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, headers)


def test_an_odd_spelling_of_a_path_opens_nothing(nobody: TestClient) -> None:
    for path in (
        "//api/v1/projects",
        "/%61pi/v1/projects",
        "/api%2fv1%2fprojects",
        "/./api/v1/projects",
        "/x/../api/v1/hub",
    ):
        assert nobody.get(path).status_code == 401
    # The exception for POST /api/v1/session is for exactly that path.
    for path in ("/api/v1%2fsession", "/api/v1/session/", "//api/v1/session"):
        assert nobody.post(path, json={"ticket": "x"}).status_code == 401


def test_navigation_without_session_gets_the_page_that_exchanges_a_ticket(nobody: TestClient) -> None:
    answer = nobody.get("/p/x", headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert "trackd open" in answer.text
    # Not a page where a program asks.
    assert nobody.get("/api/v1/hub", headers={"Accept": "text/html"}).headers["content-type"] == "application/json"


def test_a_ticket_opens_one_session(app: FastAPI, auth: Auth, nobody: TestClient) -> None:
    ticket = auth.issue_ticket()
    answer = nobody.post("/api/v1/session", json={"ticket": ticket})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    assert nobody.post("/api/v1/session", json={"ticket": ticket}).status_code == 401
    for body in (b"", b"{}", b"[]", b'{"ticket": 1}', b"x" * 10_000):
        assert nobody.post("/api/v1/session", content=body).status_code == 401


def test_the_api_needs_cookie_and_key_and_the_page_only_the_cookie(app: FastAPI, auth: Auth) -> None:
    client, key = browser(app, auth)
    other, other_key = browser(app, auth)
    assert client.get("/api/v1/projects").status_code == 401
    assert client.get("/api/v1/projects", headers={"X-Trackd-Key": other_key}).status_code == 401
    assert client.get("/api/v1/projects", headers={"X-Trackd-Key": key}).status_code == 200
    assert client.get("/api/v1/openapi.json", headers={"X-Trackd-Key": key}).status_code == 200
    assert client.get("/").text == "<!doctype html><title>dashboard</title>"
    assert other.get("/p/any/r/run").text == client.get("/").text


def test_a_session_ends(app: FastAPI, auth: Auth) -> None:
    client, key = browser(app, auth)
    cookie = {"Cookie": f"{auth.cookie_name}={client.cookies[auth.cookie_name]}"}
    assert client.delete("/api/v1/session", headers={"X-Trackd-Key": key, "Origin": BASE}).status_code == 200
    stolen = TestClient(app, base_url=BASE, headers=cookie)
    assert stolen.get("/").status_code == 401
    assert stolen.get("/api/v1/hub", headers={"X-Trackd-Key": key}).status_code == 401


def test_sessions_survive_a_restart_and_expire(tmp_path: Path) -> None:
    now = [1_000_000.0]
    path = tmp_path / "s.json"
    first = Auth(COOKIE, path, lambda: now[0])
    pair = first.exchange(first.issue_ticket())
    assert pair is not None
    token, key = pair
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text() and key not in path.read_text()
    second = Auth(COOKIE, path, lambda: now[0])
    assert second.is_session(token, key) and not second.is_session(token, key + "x") and not second.is_session("", key)
    now[0] += SESSION_S
    assert not second.is_session(token, key)


def test_a_ticket_is_valid_for_fifteen_minutes(tmp_path: Path) -> None:
    now = [0.0]
    auth = Auth(COOKIE, tmp_path / "s", lambda: now[0])
    early, late = auth.issue_ticket(), auth.issue_ticket()
    now[0] = TICKET_S - 1
    assert auth.exchange(early) is not None
    now[0] = TICKET_S
    assert auth.exchange(late) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"version":1,"sessions":[{"token_sha256":1}]}'])
def test_a_damaged_session_file_costs_a_login_only(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(content)
    path.chmod(0o600)
    auth = Auth(COOKIE, path)
    pair = auth.exchange(auth.issue_ticket())
    assert pair is not None and Auth(COOKIE, path).is_session(*pair)


def test_a_session_file_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    auth = Auth(COOKIE, path)
    pair = auth.exchange(auth.issue_ticket())
    assert pair is not None
    path.chmod(0o666)
    assert not Auth(COOKIE, path).is_session(*pair)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:80", "hub.localhost:9", "LOCALHOST"]
)
def test_loopback_names_are_hosts(api: TestClient, host: str) -> None:
    assert api.get("/api/v1/hub", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1", "", "127.0.0.1@evil", "a:b:c"]
)
def test_other_hosts_are_refused_even_with_a_credential(api: TestClient, host: str) -> None:
    assert api.get("/api/v1/hub", headers={"Host": host}).status_code == 403


def test_other_origins_are_refused(api: TestClient) -> None:
    for origin in ("http://evil.example", "http://127.0.0.1:7778", "https://127.0.0.1:7777", "null"):
        assert api.post("/api/v1/tickets", headers={"Origin": origin}).status_code == 403
        assert api.get("/api/v1/hub", headers={"Origin": origin}).status_code == 403
    assert api.post("/api/v1/tickets", headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert api.post("/api/v1/tickets", headers={"Origin": BASE, "Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_security_headers_are_on_every_answer(api: TestClient, nobody: TestClient) -> None:
    for answer in (
        api.get("/"),
        api.get("/api/v1/hub"),
        api.get("/api/nothing"),
        nobody.get("/"),
        api.get("/assets/x"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "script-src 'unsafe" not in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers


def test_the_hub_proves_that_it_knows_the_cookie(nobody: TestClient) -> None:
    nonce = "ab" * 16
    answer = nobody.get("/api/v1/hub", headers={NONCE_HEADER: nonce})
    assert answer.status_code == 401
    assert answer.headers[PROOF_HEADER] == http_proof(COOKIE, 7777, nonce)
    assert PROOF_HEADER not in nobody.get("/api/v1/hub", headers={NONCE_HEADER: "x" * 32}).headers
    assert http_proof(COOKIE, 7777, nonce) != http_token(COOKIE)


def test_a_link_carries_a_ticket_in_its_fragment(api: TestClient, app: FastAPI) -> None:
    made = api.post("/api/v1/tickets").json()
    assert made["url"] == f"{BASE}/#ticket={made['ticket']}" and made["expires_s"] == TICKET_S
    fresh = TestClient(app, base_url=BASE)
    assert fresh.post("/api/v1/session", json={"ticket": made["ticket"]}).status_code == 200


def test_static_files_and_their_caching(api: TestClient) -> None:
    assert "immutable" in api.get("/assets/app-1a2b.js").headers["cache-control"]
    assert api.get("/assets/gone-1a2b.js").status_code == 404
    assert api.get("/").headers["cache-control"] == "no-cache"
    assert api.get("/..%2f..%2fsessions.json").text == api.get("/").text
    assert api.post("/").status_code == 405
