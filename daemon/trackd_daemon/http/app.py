"""Assembles the hub's web application."""

from fastapi import FastAPI, Request, Response
from trackd_proto.version import VERSION

from trackd_daemon.errors import ConflictError, QueryError, StoreError
from trackd_daemon.http import encoding, models
from trackd_daemon.http.auth import Auth
from trackd_daemon.http.events import Broker
from trackd_daemon.http.guard import Guard
from trackd_daemon.http.hub import Hub, HubInfo
from trackd_daemon.http.routes import events, history, projects, runs, session
from trackd_daemon.http.static import Dashboard
from trackd_daemon.ports import HubStore


def create_app(store: HubStore, auth: Auth, info: HubInfo, broker: Broker | None = None) -> FastAPI:
    """The application: every route of `docs/http-api.md` behind the guard.

    `broker` is opened and closed by the caller.
    """
    hub = Hub(store, auth, info, broker or Broker(store))
    app = FastAPI(
        title="trackd hub",
        version=VERSION,
        openapi_url="/api/v1/openapi.json",
        # The interactive pages load scripts from elsewhere, which the content security policy forbids anyway.
        docs_url=None,
        redoc_url=None,
        responses={code: {"model": models.Problem} for code in (400, 401, 404, 409, 422, 503)},
    )
    for module in (session, projects, runs, history, events):
        app.include_router(module.routes(hub))
    app.add_exception_handler(QueryError, _query_error)
    app.add_exception_handler(ConflictError, _conflict)
    app.add_exception_handler(StoreError, _store_error)
    app.add_api_route(
        "/api/{path:path}", _no_route, methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False
    )
    app.mount("/", Dashboard(info.static))
    app.add_middleware(Guard, auth=auth)
    return app


async def _no_route(path: str) -> Response:
    return _problem(404, f"no such route: /api/{path}")


async def _query_error(_: Request, error: Exception) -> Response:
    position = getattr(error, "position", None)
    value = {"detail": str(error)} if position is None else {"detail": str(error), "position": position}
    return Response(encoding.to_json(value), 400, media_type=encoding.JSON)


async def _conflict(_: Request, error: Exception) -> Response:
    return _problem(409, str(error))


async def _store_error(_: Request, error: Exception) -> Response:
    response = _problem(503, str(error))
    response.headers["Retry-After"] = "1"
    return response


def _problem(status: int, text: str) -> Response:
    return Response(encoding.to_json({"detail": text}), status, media_type=encoding.JSON)
