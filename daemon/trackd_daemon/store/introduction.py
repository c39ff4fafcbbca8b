"""Who a new writer is."""

from dataclasses import dataclass

from trackd_daemon.store.decode import Fact


@dataclass(frozen=True, slots=True)
class Introduction:
    """As its START says, or without one (lost or unreadable) its id and sender."""

    project: str
    run_id: str
    attempt: str
    start_us: int
    created_us: int
    role: str
    pid: int | None
    host: str | None

    @classmethod
    def of(cls, writer_id: bytes, project: str, run_id: str, start: Fact | None) -> "Introduction":
        """What a START says; what is missing follows from the writer's id."""
        born_us = int.from_bytes(writer_id[:6], "big") * 1000  # a UUIDv7 begins with its time in milliseconds
        body = start.body if start else {}
        who = body.get("writer")
        who = who if isinstance(who, dict) else {}
        begun = int_or(body.get("attempt_start_us"), born_us)
        pid = who.get("pid")
        return cls(
            project=str(body.get("project") or project),
            run_id=str(body.get("run_id") or run_id),
            attempt=str(body.get("attempt") or f"lost-{writer_id.hex()}"),
            start_us=begun,
            created_us=int_or(body.get("created_us"), begun),
            role=str(who.get("role") or "unknown"),
            pid=None if pid is None else int_or(pid, 0),
            host=None if who.get("host") is None else str(who["host"]),
        )


def int_or(value: object, default: int) -> int:
    """A 64-bit integer, else `default`."""
    is_good = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    return int(value) if is_good else default  # type: ignore[call-overload]
