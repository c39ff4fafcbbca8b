"""What an offline run was begun with (`resume="must"`, "never", `resume_from`, `fork_from`), checked when it is sent:
conflicts are shown, data is never refused."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from trackd_proto import batch, compress, records
from trackd_proto.local.hub_client import HubClient, HubError, NotFoundError, run_path
from trackd_proto.settings import Settings
from trackd_proto.v1 import ingest_pb2

Start = Mapping[str, Any]
Exists = Callable[[str, str], bool]
_WISHES: Final = ("must", "never")


def start_of(sent: ingest_pb2.Batch) -> Start | None:
    """The body of the START record of a main writer at the head of its first batch; None if it is something else."""
    try:
        data = compress.Decompressor().decompress(sent.data, sent.raw_bytes) if sent.codec else sent.data
        record = batch.decode_one(next(batch.split(data), b""))
        kind, _, _, body = record
        is_main = kind == records.START and body["writer"]["role"] == "main"
        return body if is_main and isinstance(body["attempt_start_us"], int) else None
    except (batch.BatchError, msgspec.MsgspecError, ValueError, TypeError, KeyError):
        return None


def conflicts(settings: Settings, starts: Sequence[Start], is_new: Callable[[Start], bool]) -> list[str]:
    """Sentences about the attempts whose wish is not met; asks the hub if there is any to check.

    `starts`: of everything that is sent together. `is_new`: whether nothing of an attempt has been sent before: only
    then the hub can tell what was there before it.
    """
    wishing = [start for start in starts if (start.get("resume") in _WISHES or _branch(start)) and is_new(start)]
    if not wishing:
        return []
    try:
        client = HubClient.of_settings(settings)
        return unmet(wishing, starts, lambda project, run_id: _exists(client, project, run_id))
    except HubError as error:
        return [f"whether {_path(start)} may be {_wish(start)} could not be checked: {error}" for start in wishing]


def unmet(wishing: Sequence[Start], starts: Sequence[Start], exists: Exists) -> list[str]:
    """The same given who tells what the hub has. Pure."""
    found = []
    for start in sorted(wishing, key=lambda each: int(each["attempt_start_us"])):
        if branch := _branch(start):
            found += _unmet_branch(start, branch, starts, exists)
            continue
        is_there = any(_is_before(other, start) for other in starts) or exists(start["project"], start["run_id"])
        if start["resume"] == "must" and not is_there:
            found.append(
                f'the run {_path(start)} was begun with resume="must", and there was no such run: it is a new one now. '
                "If another was meant, look for its id with trackd ls"
            )
        elif start["resume"] == "never" and is_there:
            found.append(
                f'the run {_path(start)} was begun with resume="never", and there was one already: this is another '
                "attempt of it now. Its own curve: trackd.Api().run(...).history(attempt=...)"
            )
    return found


def _unmet_branch(start: Start, branch: Mapping[str, Any], starts: Sequence[Start], exists: Exists) -> list[str]:
    project, parent, step = start["project"], branch["run_id"], branch["step"]
    found = []
    if parent == start["run_id"]:
        if not (any(_is_before(other, start) for other in starts) or exists(project, parent)):
            found.append(
                f"the run {_path(start)} was begun with {_wish(start)}, and there was no such run: it is a new one "
                f"now, which begins at step {step + 1}. If another was meant, look for its id with trackd ls"
            )
        return found
    if not (
        any((other["project"], other["run_id"]) == (project, parent) for other in starts) or exists(project, parent)
    ):
        found.append(
            f"the run {_path(start)} was begun with {_wish(start)}, and the hub has no run {project}/{parent} yet: "
            "what it inherits is shown when that has been sent"
        )
    if any(_is_before(other, start) for other in starts) or exists(project, start["run_id"]):
        found.append(
            f"the run {_path(start)} was begun with {_wish(start)}, and there was a run of this id already: this is "
            "another attempt of it now. Its own curve: trackd.Api().run(...).history(attempt=...)"
        )
    return found


def _branch(start: Start) -> Mapping[str, Any] | None:
    branch = start.get("branch")
    is_one = isinstance(branch, dict) and isinstance(branch.get("run_id"), str) and isinstance(branch.get("step"), int)
    return branch if is_one else None


def _wish(start: Start) -> str:
    branch = _branch(start)
    if branch is None:
        return f"resume={start['resume']!r}"
    name = "resume_from" if branch["run_id"] == start["run_id"] else "fork_from"
    return f'{name}="{branch["run_id"]}?_step={branch["step"]}"'


def _is_before(other: Start, start: Start) -> bool:
    same = (other["project"], other["run_id"]) == (start["project"], start["run_id"])
    return same and other["attempt"] != start["attempt"] and other["attempt_start_us"] < start["attempt_start_us"]


def _exists(client: HubClient, project: str, run_id: str) -> bool:
    try:
        client.get(run_path(project, run_id))
    except NotFoundError:
        return False
    return True


def _path(start: Start) -> str:
    return f"{start['project']}/{start['run_id']}"
