"""Addresses of the dashboard's pages. Pure."""

from urllib.parse import quote


def project_path(project: str) -> str:
    """The page of a project's runs, from the root of the hub."""
    return f"/p/{quote(project, safe='')}"


def run_path(project: str, run_id: str) -> str:
    """The page of one run, from the root of the hub."""
    return f"{project_path(project)}/r/{quote(run_id, safe='')}"
