"""A thin client of the hub's HTTP API, for `trackd.Api()` and the CLI.

It finds the hub of this user on this machine (daemon.json in the instance directory), makes the bearer token from the
cookie file and, before sending it, has the hub prove that it knows the cookie too. Answers travel as msgpack, so
that NaN, infinities and large integers come out as they went in.
"""

import hmac
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import urllib3

from trackd_proto import batch
from trackd_proto.auth import NONCE_HEADER, PROOF_HEADER, http_proof, http_token
from trackd_proto.layout import Instance, Published
from trackd_proto.local import places
from trackd_proto.records import restore
from trackd_proto.settings import Settings

Params = Mapping[str, str | int | float | Sequence[str] | None]

_MSGPACK: Final = "application/msgpack"
_CONNECT_S: Final = 5.0
_READ_S: Final = 120.0
_START_S: Final = 60.0
"""A hub opens its store within seconds; recovery after a crash may take longer."""
_RETRIES: Final = urllib3.Retry(
    total=4, backoff_factor=0.1, status_forcelist=(503,), allowed_methods=("GET",), raise_on_status=False
)
BROKEN: Final = urllib3.exceptions.HTTPError
"""What reading a stream of `open` raises when the connection breaks."""

_decode = msgspec.msgpack.decode


class HubError(Exception):
    """A question to the hub failed; the message says what happened and what to do."""

    status: int = 0
    """Of the HTTP answer; 0 if there was none."""


class NoHubError(HubError, ConnectionError):
    """No hub answers."""


class NotReadyError(NoHubError):
    """A daemon runs and has no hub, or not yet."""


class HubAuthError(HubError, PermissionError):
    """The hub does not accept the credential, or what answers is not this user's hub."""


class BadQuestionError(HubError, ValueError):
    """The hub does not understand the question (a mistake in a filter, a value out of range)."""


class NotFoundError(HubError, LookupError):
    """There is no such project or run."""


class NameTakenError(HubError):
    """The change would collide with something that exists."""


_BY_STATUS: Final[dict[int, type[HubError]]] = {
    400: BadQuestionError,
    401: HubAuthError,
    403: HubAuthError,
    404: NotFoundError,
    409: NameTakenError,
    422: BadQuestionError,
}


class HubClient:
    """Asks one hub. Safe to use from several threads."""

    def __init__(self, url: str, token: str) -> None:
        self.url: Final = url.rstrip("/")
        self._pool = urllib3.PoolManager(
            headers={"Authorization": f"Bearer {token}", "Accept": _MSGPACK},
            timeout=urllib3.Timeout(connect=_CONNECT_S, read=_READ_S),
            retries=_RETRIES,
        )

    @classmethod
    def find(
        cls, where: Instance | None = None, *, can_start: bool = False, upstream_cookie: str | Path = ""
    ) -> "HubClient":
        """The hub of this user on this machine; `can_start`: start the daemon if none runs.

        `upstream_cookie`: the cookie file of a separate hub that the agent sends to (it lies in that hub's instance
        directory, beside what it publishes). Raises NoHubError, HubAuthError, places.UnsafePlaceError.
        """
        if upstream_cookie:
            directory = Path(upstream_cookie).absolute().parent
            return _connect(Instance(directory.parent, directory.name))
        where = where or places.instance()
        try:
            return _connect(where)
        except NotReadyError:
            _wait_for_hub(where)
        except NoHubError:
            if not can_start:
                raise
            _start(where)
            _wait_for_hub(where)
        return _connect(where)

    @classmethod
    def of_settings(cls, settings: Settings, *, can_start: bool = True) -> "HubClient":
        """The hub that these settings mean. Raises as `find`."""
        where = places.instance(settings.home_path())
        return cls.find(where, can_start=can_start, upstream_cookie=settings.upstream_cookie)

    def get(self, path: str, params: Params | None = None) -> Any:
        """The answer to GET `path` (after /api/v1). Repeats itself if the connection breaks."""
        return self._ask("GET", path, params)

    def post(self, path: str, value: Any = None) -> Any:
        """The answer to POST."""
        return self._ask("POST", path, None, {} if value is None else value)

    def patch(self, path: str, value: Any) -> Any:
        """The answer to PATCH."""
        return self._ask("PATCH", path, None, value)

    def delete(self, path: str) -> Any:
        """The answer to DELETE."""
        return self._ask("DELETE", path)

    @contextmanager
    def open(self, path: str, params: Params | None = None) -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer to GET that is read as it comes: `response.stream()`. Raises HubError on entering."""
        response = self._send("GET", path, params, None, is_streamed=True)
        try:
            if response.status >= 300:
                raise _error(response.status, response.data)
            yield response
        finally:
            response.close()  # not released: what was not read must not wait in the pool

    def rows(self, path: str, params: Params | None = None) -> Iterator[dict[str, Any]]:
        """The rows of a scan, as they come. Raises HubError, also when the answer ends too early."""
        with self.open(path, params) as response:
            while prefix := _read(response, batch.PREFIX.size):
                _, size = batch.PREFIX.unpack(prefix)
                for row in _decode(_read(response, size)):
                    yield {key: restore(value) if type(value) in {dict, list} else value for key, value in row.items()}

    def _ask(self, method: str, path: str, params: Params | None = None, value: Any = None) -> Any:
        response = self._send(method, path, params, value)
        if response.status >= 300:
            raise _error(response.status, response.data)
        return restore(_decode(response.data))

    def _send(
        self, method: str, path: str, params: Params | None, value: Any, *, is_streamed: bool = False
    ) -> urllib3.BaseHTTPResponse:
        url = f"{self.url}/api/v1{path}{_query(params)}"
        body = None if value is None else msgspec.json.encode(value)
        headers = dict(self._pool.headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            return self._pool.request(
                method, url, body=body, headers=headers, preload_content=not is_streamed, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise NoHubError(f"the hub at {self.url} does not answer ({_reason(error)}): run `trackd open`") from error


def run_path(project: str, run_id: str) -> str:
    """The API's path of a run."""
    return f"/runs/{quote(project, safe='')}/{quote(run_id, safe='')}"


def project_path(project: str) -> str:
    """The API's path of a project."""
    return f"/projects/{quote(project, safe='')}"


def _connect(where: Instance) -> HubClient:
    """A client of the hub that is published here, after it has proved itself."""
    try:
        published = msgspec.json.decode(places.read_private(where.published), type=Published)
        cookie = bytes.fromhex(places.read_private(where.cookie, 4096).decode("ascii"))
    except FileNotFoundError as error:
        raise NoHubError(f"no hub has run in {where.home} yet: run `trackd open`") from error
    except (ValueError, RecursionError) as error:
        raise NoHubError(
            f"{where.published} or {where.cookie} is damaged: run `trackd stop`, then `trackd open`"
        ) from error
    if not published.http_url:
        raise NotReadyError(f"the daemon here (pid {published.pid}) serves no dashboard: look at `trackd status`")
    _challenge(published.http_url, cookie)
    return HubClient(published.http_url, http_token(cookie))


def _challenge(url: str, cookie: bytes) -> None:
    """Have whoever listens prove that it knows the cookie. Raises NoHubError, HubAuthError."""
    nonce = secrets.token_hex(16)
    try:
        answer = urllib3.request(
            "GET",
            f"{url}/api/v1/hub",
            headers={NONCE_HEADER: nonce},
            timeout=_CONNECT_S,
            retries=urllib3.Retry(total=2, connect=1, backoff_factor=0.1),
        )
    except urllib3.exceptions.HTTPError as error:
        raise NoHubError(f"no hub is running at {url} ({_reason(error)}): run `trackd open`") from error
    proof = http_proof(cookie, urlsplit(url).port or 80, nonce)
    if not hmac.compare_digest(answer.headers.get(PROOF_HEADER, "").encode(), proof.encode()):
        raise HubAuthError(f"what listens on {url} is not this user's hub; nothing was sent to it: run `trackd status`")


def _wait_for_hub(where: Instance) -> None:
    """A daemon opens its hub after it is ready for its trainers: wait for that. Raises NoHubError if it has none."""
    from trackd_proto.local import hub_start  # noqa: PLC0415  (loads gRPC, which is seldom needed here)

    try:
        hub_start.wait(where, _START_S)
    except ConnectionError as error:
        raise NoHubError(str(error)) from error


def _start(where: Instance) -> None:
    from trackd_proto.local import instance  # noqa: PLC0415  (loads gRPC; only who starts a daemon pays for it)

    try:
        instance.spawn(where)
    except instance.SpawnError as error:
        raise NoHubError(str(error)) from error


def _query(params: Params | None) -> str:
    given = {key: value for key, value in (params or {}).items() if value is not None}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def _read(response: urllib3.BaseHTTPResponse, size: int) -> bytes:
    """Exactly `size` bytes, or none at the end."""
    parts: list[bytes] = []
    left = size
    try:
        while left and (part := response.read(left)):
            parts.append(part)
            left -= len(part)
    except urllib3.exceptions.HTTPError as error:
        raise NoHubError(f"the hub broke off in the middle of its answer ({_reason(error)}): try again") from error
    if left and parts:
        raise NoHubError("the hub broke off in the middle of its answer: try again")
    return b"".join(parts)


def _error(status: int, body: bytes) -> HubError:
    try:
        value = msgspec.json.decode(body)
        detail = value["detail"]
        # FastAPI's own checks answer a list of mistakes.
        text = detail if isinstance(detail, str) else "; ".join(f"{d['loc'][-1]}: {d['msg']}" for d in detail)
        if "position" in value:
            text += f" (at character {value['position'] + 1})"
    except (msgspec.DecodeError, KeyError, TypeError, IndexError):
        text = body[:200].decode("utf-8", "replace") or "no reason given"
    error = _BY_STATUS.get(status, HubError)(text if status < 500 else f"the hub answered {status}: {text}")
    error.status = status
    return error


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        return _reason(error.reason)
    return str(error).rsplit(": ", 1)[-1]
