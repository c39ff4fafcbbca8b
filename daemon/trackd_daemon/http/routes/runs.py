"""One run: its fields, keys and writers."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from trackd_daemon.http import models
from trackd_daemon.http.hub import Hub, answer, no_run
from trackd_daemon.http.routes.names import RUN


def routes(hub: Hub) -> APIRouter:
    """Everything about one run that is not its points."""
    router = APIRouter(tags=["runs"])
    store = hub.store

    @router.get(RUN, response_model=models.RunOut)
    async def get_run(request: Request, project: str, run: str) -> Response:
        """One run with its config and summary."""
        return answer(request, await hub.need_run(project, run))

    @router.patch(RUN, response_model=models.RunOut)
    async def edit_run(request: Request, project: str, run: str, edit: models.RunEdit) -> Response:
        """Change fields of the run; `project` moves it. 409 if the other project has a run of this id."""
        changes = _changes(edit)
        if not await hub.call(store.edit_run, project, run, changes):
            raise no_run(project, run)
        return answer(request, await hub.need_run(changes.get("project", project), run))

    @router.delete(RUN, response_model=models.Empty)
    async def delete_run(request: Request, project: str, run: str) -> Response:
        """Delete the run with all its points."""
        if not await hub.call(store.delete_run, project, run):
            raise no_run(project, run)
        return answer(request, {})

    @router.post(RUN + "/stop", response_model=models.Empty)
    async def stop_run(request: Request, project: str, run: str) -> Response:
        """Ask the run's process to stop."""
        if not await hub.call(store.request_stop, project, run):
            raise no_run(project, run)
        return answer(request, {})

    @router.get(RUN + "/keys", response_model=models.KeysOut)
    async def list_keys(request: Request, project: str, run: str, stream: str = "default") -> Response:
        """The run's series."""
        await hub.need(project, run)
        return answer(request, {"keys": await hub.call(store.keys, project, run, stream)})

    @router.get(RUN + "/attempts", response_model=models.AttemptsOut)
    async def list_attempts(request: Request, project: str, run: str) -> Response:
        """How often the run was begun, from which step to which, and how each attempt ended."""
        await hub.need(project, run)
        return answer(request, {"attempts": await hub.call(store.attempts, project, run)})

    @router.get(RUN + "/writers", response_model=models.WritersOut)
    async def list_writers(request: Request, project: str, run: str) -> Response:
        """The run's writers with count and rolling hash of what is stored, for `trackd verify`."""
        await hub.need(project, run)
        return answer(request, {"writers": await hub.call(store.writers, project, run)})

    return router


def _changes(edit: models.RunEdit) -> dict[str, Any]:
    changes = edit.model_dump(exclude_unset=True)
    for field in ("name", "tags", "project"):
        if field in changes and changes[field] is None:
            raise HTTPException(422, f"{field} cannot be null")
    if not changes:
        raise HTTPException(422, "nothing to change: give any of name, notes, tags, group, project")
    return changes
