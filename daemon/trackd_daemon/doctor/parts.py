"""Findings about trackd's own parts: lock, daemon, socket, cookies, versions, upstream, what is not sent. Pure."""

from collections.abc import Iterator
from typing import Final

from trackd_daemon.doctor import facts
from trackd_daemon.doctor.findings import Finding, bytes_text, records_text

MAX_SOCKET_BYTES: Final = 107
"""What the kernel takes."""
SKEW_S: Final = 30
_NEXT: Final = "the next trackd.init() starts one"


def check_lock(lock: facts.Lock, daemon: facts.Daemon) -> Finding:
    """Who owns the directory, and whether that is who is published."""
    published = daemon.published
    if lock.error:
        text = f"{lock.path} cannot be locked: {lock.error}"
        return Finding("lock", "trouble", text, "set TRACKD_HOME to a directory on a local disk")
    if not lock.is_held:
        if daemon.outcome == "ok":
            text = f"a daemon answers that does not hold {lock.path}: the lock file was removed or replaced"
            return Finding("lock", "trouble", text, "run `trackd stop`; " + _NEXT)
        return Finding("lock", "ok", "free")
    who = " and ".join(f"process {pid}" for pid in lock.holders)
    if published is None:
        text = f"{lock.path} is held by {who or 'a process'}, and no daemon is published"
        return Finding(
            "lock", "trouble", text, f"if it is not just starting, end {who or 'its holder (see `lslocks`)'}"
        )
    if lock.holders and published.pid not in lock.holders:
        text = f"{lock.path} is held by {who}, and the published daemon is process {published.pid}"
        return Finding("lock", "trouble", text, f"end {who} (`kill {lock.holders[0]}`); {_NEXT}")
    if not lock.holders and daemon.outcome != "ok":
        text = f"{lock.path} is held by a process that cannot be seen from here, and no daemon answers"
        return Finding("lock", "trouble", text, "another container may share this home: give each its own TRACKD_HOME")
    return Finding("lock", "ok", f"held by the published daemon (process {published.pid})")


def check_daemon(lock: facts.Lock, daemon: facts.Daemon, socket: facts.Socket, log: str) -> Iterator[Finding]:
    """Whether the daemon that should answer does; what it says itself."""
    yield _socket(socket)
    published = daemon.published
    if published is None and daemon.outcome == "unsafe":
        yield Finding("daemon", "trouble", daemon.error, "correct that, then run `trackd stop`; " + _NEXT)
        return
    if published is None or (not lock.is_held and daemon.outcome != "ok"):
        yield Finding("daemon", "note", f"none runs; {_NEXT}")
        return
    pid = published.pid
    if daemon.outcome == "ok":
        yield Finding("daemon", "ok", f"{published.role}, process {pid}, version {daemon.version}, answers")
    elif not daemon.is_socket_there:
        text = f"the socket {published.socket} of the daemon (process {pid}) is gone"
        yield Finding("daemon", "trouble", text, f"a healthy daemon makes it anew within a minute; else `kill {pid}`")
    else:
        advice = {
            "impostor": f"find out who listens on {published.socket}",
            "version": "run `trackd stop` with the trackd that started it, or update this one",
        }.get(daemon.outcome, f"see {log}; `kill {pid}` ends it, {_NEXT}")
        yield Finding("daemon", "trouble", f"process {pid} does not serve: {daemon.error}", advice)
    yield from _said(daemon, log)


def _socket(socket: facts.Socket) -> Finding:
    if socket.path_bytes > MAX_SOCKET_BYTES:
        text = f"the path {socket.path} has {socket.path_bytes} bytes, a socket's may have {MAX_SOCKET_BYTES}"
        return Finding("socket", "trouble", text, "set TMPDIR or TRACKD_HOME to a shorter path")
    if not socket.is_near:
        return Finding("socket", "note", f"the home's path is too long for a socket: it is made as {socket.path}")
    return Finding("socket", "ok", f"its path has {socket.path_bytes} bytes")


def _said(daemon: facts.Daemon, log: str) -> Iterator[Finding]:
    for warning in daemon.warnings:
        yield Finding("daemon", "warning", f"it says: {warning}", f"see {log}")
    if daemon.lost_records:
        text = f"{records_text(daemon.lost_records)} declared lost"
        yield Finding("daemon", "warning", text, "`trackd show PROJECT/RUN` says of which run")
    for route in daemon.routes:
        lag = f"{records_text(route.records)} for {route.route} not committed yet"
        if route.state == "paused":
            text = f"{lag}; sending is paused: {route.reason}"
            yield Finding("daemon", "trouble", text, "correct TRACKD_UPSTREAM or TRACKD_UPSTREAM_COOKIE")
        elif route.state == "retrying":
            yield Finding("daemon", "warning", f"{lag}; it tries again and again: {route.reason}", "start the hub")
        elif route.records:
            yield Finding("daemon", "note", f"{lag}, on the way")


def check_cookie(cookie: facts.Cookie) -> Finding:
    """The files that prove who one is."""
    name = "upstream cookie" if cookie.is_upstream else "cookie"
    if cookie.state == "ok":
        return Finding(name, "ok", f"{cookie.path} can be read by you alone")
    if cookie.state == "bad":
        return Finding(name, "trouble", cookie.error, f"see to {cookie.path}; nothing is sent without it")
    if cookie.is_upstream:
        text = f"{cookie.path} does not exist"
        return Finding(name, "trouble", text, "copy the hub's cookie file there, or correct TRACKD_UPSTREAM_COOKIE")
    return Finding(name, "ok", "not there yet; the first run makes it")


def check_versions(versions: facts.Versions, formats: facts.Formats, *, has_upstream: bool) -> Iterator[Finding]:
    """The parts that must fit together, and files of newer versions."""
    if not versions.has_sdk:
        text = "this Python has the daemon and not the SDK (`import trackd` finds nothing)"
        yield Finding("versions", "trouble", text, "install trackd anew")
    elif versions.installed and versions.installed != versions.own:
        text = f"trackd {versions.own} runs, and {versions.installed} is what is installed here: two are mixed"
        yield Finding("versions", "warning", text, "install trackd anew, and look at PYTHONPATH")
    else:
        yield Finding("versions", "ok", f"trackd {versions.own}")
    if versions.missing_hub and not has_upstream:
        text = f"no hub: {', '.join(versions.missing_hub)} cannot be imported, and TRACKD_UPSTREAM is not set"
        yield Finding("versions", "warning", text, "pip install 'trackd[hub]', or set TRACKD_UPSTREAM")
    for newer in formats.newer:
        text = f"{newer.path} has format {newer.found}, this trackd reads up to {newer.supported}"
        yield Finding("formats", "trouble", text, "use the newer trackd that wrote it; nothing is changed until then")
    if not formats.newer:
        yield Finding("formats", "ok", "every file is of a version that this trackd reads")


def check_daemon_version(daemon: facts.Daemon, own: str) -> Iterator[Finding]:
    """A daemon of another version that answers all the same."""
    if daemon.outcome == "ok" and daemon.version != own:
        text = f"the daemon that runs is version {daemon.version}, this is {own}"
        yield Finding("versions", "note", f"{text}; `trackd stop` makes room for the newer one")


_UPSTREAM_ADVICE: Final = {
    "unresolved": "correct TRACKD_UPSTREAM, or see to the name server",
    "unreachable": "start the hub, or the tunnel to it (`ssh -L`); until then data wait on this disk",
    "silent": "see whether it is a trackd hub that listens there (`trackd serve --role hub --listen`)",
    "cookie": "set TRACKD_UPSTREAM_COOKIE to a copy of the hub's cookie file, mode 0600",
    "impostor": "copy the hub's cookie file anew: it changed, or another program listens there",
    "version": "update the older of the two",
    "refused": "copy the hub's cookie file anew",
}


def check_upstream(upstream: facts.Upstream) -> Iterator[Finding]:
    """Whether the configured hub can be reached and takes us."""
    if upstream.outcome == "embedded":
        yield Finding("upstream", "ok", "none is set: the hub is in the daemon of this user")
        return
    if upstream.outcome != "ok":
        text = f"{upstream.address}: {upstream.error}"
        yield Finding("upstream", "trouble", text, _UPSTREAM_ADVICE[upstream.outcome])
        return
    yield Finding("upstream", "ok", f"{upstream.address} answers and takes our credential")
    if upstream.skew_s is not None and abs(upstream.skew_s) > SKEW_S:
        side = "ahead of" if upstream.skew_s > 0 else "behind"
        text = f"the clock of the hub is {abs(upstream.skew_s):.0f} s {side} ours"
        yield Finding("clock", "warning", text, "set both clocks (NTP); runs of several machines are compared by time")


def check_backlog(backlog: facts.Backlog) -> Iterator[Finding]:
    """What only this disk has, and what sends it."""
    found = [*_spools(backlog), *_log(backlog)]
    for run in backlog.offline:
        text = f"{run.path} holds an offline run ({records_text(run.records)}, {bytes_text(run.size)})"
        found.append(
            Finding("unsent", "note", text, f"`trackd flush {run.path}` sends it; what was sent is not doubled")
        )
    yield from found or [Finding("unsent", "ok", "nothing waits on this disk")]


def _spools(backlog: facts.Backlog) -> Iterator[Finding]:
    for path in backlog.unreadable:
        yield Finding("unsent", "warning", f"{path} cannot be read as a spool", "`trackd flush` sends what can be read")
    sessions: dict[str, list[facts.Lane]] = {}
    for lane in backlog.lanes:
        sessions.setdefault(lane.session, []).append(lane)
    for session, lanes in sessions.items():
        unsent = records_text(count := sum(lane.unsent for lane in lanes))
        is_dead = all(lane.owner == "dead" for lane in lanes)
        has_courier = any(lane.has_courier for lane in lanes)
        if is_dead and not has_courier:
            if count:
                text = f"a process that is gone left {unsent} in {session}"
                yield Finding("unsent", "warning", text, "`trackd flush` sends it")
            else:
                yield Finding("unsent", "note", f"{session} is left over, all of it sent; `trackd flush` clears it")
        elif count and not has_courier:
            text = f"a running process has {unsent} in {session}, and no courier serves it"
            yield Finding(
                "unsent", "warning", text, "nothing is lost; `trackd flush` sends it once the process has ended"
            )
        elif count:
            yield Finding("unsent", "note", f"{unsent} in {session}, on the way")


def _log(backlog: facts.Backlog) -> Iterator[Finding]:
    if backlog.wal_records:
        text = f"no daemon runs, and {backlog.wal_path} holds {records_text(backlog.wal_records)} not committed yet"
        yield Finding("unsent", "warning", text, "`trackd flush` starts one and sends all of it")
    elif backlog.wal_records is None and backlog.wal_bytes:
        text = f"{bytes_text(backlog.wal_bytes)} lie in {backlog.wal_path}; how much of it is unsent cannot be told"
        yield Finding("unsent", "warning", text, "`trackd flush` starts a daemon and sends the rest")
