"""The hub, its projects and their runs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from trackd_daemon.http import models
from trackd_daemon.http.hub import Hub, answer, no_project
from trackd_daemon.http.routes.names import PROJECT


def routes(hub: Hub) -> APIRouter:
    """GET /api/v1/hub and everything under /api/v1/projects."""
    router = APIRouter(tags=["projects"])
    store = hub.store

    @router.get("/api/v1/hub", response_model=models.HubOut)
    async def get_hub(request: Request) -> Response:
        """What answers here."""
        info = hub.info
        value = {
            "version": info.version,
            "store_id": await hub.call(store.store_id),
            "role": info.role,
            "started_us": info.started_us,
            "lag_records": info.lag_records(),
            "warnings": list(info.warnings()),
        }
        return answer(request, value)

    @router.get("/api/v1/projects", response_model=models.ProjectsOut)
    async def list_projects(request: Request) -> Response:
        """All projects, newest activity first."""
        return answer(request, {"projects": await hub.call(store.projects)})

    @router.patch(PROJECT, response_model=models.Empty)
    async def rename_project(request: Request, project: str, edit: models.ProjectEdit) -> Response:
        """Give the project another name. 409 if it is taken."""
        if not await hub.call(store.rename_project, project, edit.name):
            raise no_project(project)
        return answer(request, {})

    @router.delete(PROJECT, response_model=models.Empty)
    async def delete_project(request: Request, project: str) -> Response:
        """Delete the project with all its runs."""
        if not await hub.call(store.delete_project, project):
            raise no_project(project)
        return answer(request, {})

    @router.get(PROJECT + "/columns", response_model=models.ColumnsOut)
    async def list_columns(request: Request, project: str) -> Response:
        """What a table of the project's runs can show."""
        return answer(request, {"columns": await hub.call(store.columns, project)})

    @router.get(PROJECT + "/runs", response_model=models.RunsOut)
    async def list_runs(
        request: Request,
        *,
        project: str,
        where: str = "",
        sort: str = "-created",
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        cursor: str = "",
    ) -> Response:
        """A page of the project's runs that match `where`, in the order of `sort`."""
        page = await hub.call(store.runs, project, where=where, sort=sort or "-created", limit=limit, cursor=cursor)
        return answer(request, page)

    return router
