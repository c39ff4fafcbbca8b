"""Tickets and sessions."""

from fastapi import APIRouter, HTTPException, Request, Response

from trackd_daemon.http import guard, models
from trackd_daemon.http.auth import SESSION_S, TICKET_S
from trackd_daemon.http.hub import Hub, answer


def routes(hub: Hub) -> APIRouter:
    """POST and DELETE /api/v1/session, POST /api/v1/tickets."""
    router = APIRouter(tags=["session"])
    cookie = hub.auth.cookie_name

    @router.post(guard.SESSION, response_model=models.KeyOut, openapi_extra=_body(models.TicketIn))
    async def open_session(request: Request) -> Response:
        """Exchange a single-use ticket for a session: a cookie and a key. Needs no other credential."""
        pair = await hub.call(hub.auth.exchange, await _ticket(request))
        if pair is None:
            raise HTTPException(401, "the ticket is unknown, used or older than 15 minutes: run `trackd open`")
        response = answer(request, {"key": pair[1]})
        response.set_cookie(cookie, pair[0], max_age=SESSION_S, path="/", httponly=True, samesite="strict")
        return response

    @router.delete(guard.SESSION, response_model=models.Empty)
    async def close_session(request: Request) -> Response:
        """End the session that asks."""
        token = guard.session_cookie(request.headers, cookie)
        if token is not None:
            await hub.call(hub.auth.end, token)
        response = answer(request, {})
        response.delete_cookie(cookie, path="/", httponly=True, samesite="strict")
        return response

    @router.post("/api/v1/tickets", response_model=models.TicketOut)
    async def issue_ticket(request: Request) -> Response:
        """A new ticket and the link that carries it."""
        ticket = hub.auth.issue_ticket()
        return answer(request, {"ticket": ticket, "url": f"{hub.info.url()}/#ticket={ticket}", "expires_s": TICKET_S})

    return router


async def _ticket(request: Request) -> str:
    """The ticket in the body. A body that has none is no credential: 401, whatever else is wrong with it."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > 4096:
            raise HTTPException(401, "no ticket")
    try:
        return models.TicketIn.model_validate_json(body).ticket
    except ValueError:
        raise HTTPException(401, "no ticket in the body: run `trackd open` for a link") from None


def _body(model: type[models.TicketIn]) -> dict[str, object]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}
