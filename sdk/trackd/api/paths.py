"""How users name projects and runs. Pure."""

from urllib.parse import unquote, urlsplit


def split_run(path: str, default_project: str = "") -> tuple[str, str]:
    """(project, run id) of ``project/id``, ``entity/project/id``, ``…/runs/id``, an address, or an id alone.

    Raises ValueError for anything else.
    """
    parts = _parts(path)
    if parts and "://" in path and parts[0] == "p":
        parts = parts[1:]
    if len(parts) in (3, 4) and parts[-2] in ("r", "runs"):
        del parts[-2]
    if len(parts) == 1 and default_project:
        parts = [default_project, *parts]
    if len(parts) not in (2, 3):
        raise ValueError(f"{path!r} names no run: give 'project/run_id'")
    return parts[-2], parts[-1]


def project_of(path: str) -> str:
    """The project of ``project``, ``entity/project`` or an address. Raises ValueError."""
    parts = _parts(path)
    if parts and "://" in path and parts[0] == "p":
        parts = parts[1:2]
    if len(parts) not in (1, 2):
        raise ValueError(f"{path!r} names no project: give 'project'")
    return parts[-1]


def _parts(path: str) -> list[str]:
    if not isinstance(path, str):
        raise TypeError(f"a path is a text such as 'project/run_id', not {type(path).__name__}")
    if "://" in path:
        return [unquote(part) for part in urlsplit(path).path.split("/") if part]
    return [part for part in path.split("/") if part]
