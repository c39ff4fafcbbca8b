"""trackd doctor: what is wrong with trackd's own parts is named, with what to do about it."""

from dataclasses import replace
from typing import Any

import pytest
from trackd_daemon.doctor import facts, parts
from trackd_daemon.doctor.findings import Finding
from trackd_proto.layout import Published

PUBLISHED = Published(42, 0.0, 1, "/h/i/d1.sock", "0.1.0", 1, 1, "agent+hub")
FREE = facts.Lock("/h/i/daemon.lock", False)
HELD = replace(FREE, is_held=True, holders=(42,))
NONE = facts.Daemon(None)
ANSWERS = facts.Daemon(PUBLISHED, True, "ok", version="0.1.0")
SILENT = facts.Daemon(PUBLISHED, True, "silent", "Deadline Exceeded")
GONE = replace(SILENT, is_socket_there=False)
SOCKET = facts.Socket("/h/i/d1.sock", 12, True)


def said_by(found: Any, check: str) -> list[Finding]:
    return [finding for finding in found if finding.check == check]


@pytest.mark.parametrize(
    ("lock", "daemon", "level", "said"),
    [
        (FREE, NONE, "ok", "free"),
        (FREE, SILENT, "ok", "free"),
        (HELD, ANSWERS, "ok", "held by the published daemon (process 42)"),
        (replace(HELD, holders=()), ANSWERS, "ok", "held by the published daemon"),
        (FREE, ANSWERS, "trouble", "does not hold /h/i/daemon.lock"),
        (HELD, NONE, "trouble", "held by process 42, and no daemon is published"),
        (replace(HELD, holders=(7,)), SILENT, "trouble", "held by process 7, and the published daemon is process 42"),
        (replace(HELD, holders=()), SILENT, "trouble", "cannot be seen from here"),
        (replace(FREE, error="No locks available"), NONE, "trouble", "cannot be locked: No locks available"),
    ],
)
def test_the_lock_is_the_published_daemons(lock: facts.Lock, daemon: facts.Daemon, level: str, said: str) -> None:
    finding = parts.check_lock(lock, daemon)
    assert finding.level == level and said in finding.text
    assert bool(finding.advice) == (level == "trouble")


@pytest.mark.parametrize(
    ("lock", "daemon", "level", "said", "advice"),
    [
        (FREE, NONE, "note", "none runs", ""),
        (FREE, SILENT, "note", "none runs", ""),
        (HELD, ANSWERS, "ok", "agent+hub, process 42, version 0.1.0, answers", ""),
        (HELD, SILENT, "trouble", "process 42 does not serve: Deadline Exceeded", "kill 42"),
        (HELD, GONE, "trouble", "/h/i/d1.sock of the daemon (process 42) is gone", "42"),
        (HELD, replace(SILENT, outcome="impostor", error="who?"), "trouble", "who?", "find out who listens"),
        (HELD, replace(SILENT, outcome="version", error="speaks 9"), "trouble", "speaks 9", "trackd stop"),
        (HELD, replace(SILENT, outcome="unsafe", error="cookie is damaged"), "trouble", "cookie is damaged", "i.log"),
        (HELD, facts.Daemon(None, outcome="unsafe", error="daemon.json is open"), "trouble", "is open", "correct that"),
    ],
)  # fmt: skip
def test_a_daemon_that_should_answer_does(
    lock: facts.Lock, daemon: facts.Daemon, level: str, said: str, advice: str
) -> None:
    (finding,) = said_by(parts.check_daemon(lock, daemon, SOCKET, "/h/i.log"), "daemon")
    assert finding.level == level and said in finding.text and advice in finding.advice


def test_what_the_daemon_says_is_passed_on() -> None:
    states = ("paused", "retrying", "connected")
    behind = [facts.RouteLag(f"{state}:1", state, "because", 5) for state in states]
    routes = (*behind, facts.RouteLag("embedded", "embedded", "", 0))
    daemon = replace(ANSWERS, warnings=("disk nearly full",), lost_records=1, routes=routes)
    found = said_by(parts.check_daemon(HELD, daemon, SOCKET, "/log"), "daemon")[1:]
    assert [(f.level, f.text) for f in found] == [
        ("warning", "it says: disk nearly full"),
        ("warning", "1 record declared lost"),
        ("trouble", "5 records for paused:1 not committed yet; sending is paused: because"),
        ("warning", "5 records for retrying:1 not committed yet; it tries again and again: because"),
        ("note", "5 records for connected:1 not committed yet, on the way"),
    ]
    assert "TRACKD_UPSTREAM_COOKIE" in found[2].advice


@pytest.mark.parametrize(
    ("socket", "level"),
    [(SOCKET, "ok"), (facts.Socket("/tmp/x", 60, False), "note"), (facts.Socket("/long", 108, False), "trouble")],
)  # fmt: skip
def test_a_socket_has_a_path_that_fits(socket: facts.Socket, level: str) -> None:
    (finding,) = said_by(parts.check_daemon(FREE, NONE, socket, "/log"), "socket")
    assert finding.level == level


@pytest.mark.parametrize(
    ("cookie", "level", "said"),
    [
        (facts.Cookie("/c", "ok"), "ok", "/c"),
        (facts.Cookie("/c", "missing"), "ok", "the first run makes it"),
        (facts.Cookie("/c", "bad", "/c is open to other users (mode 644)"), "trouble", "mode 644"),
        (facts.Cookie("/u", "missing", is_upstream=True), "trouble", "/u does not exist"),
        (facts.Cookie("/u", "bad", "/u is damaged", True), "trouble", "/u is damaged"),
    ],
)
def test_cookies_are_private_and_there(cookie: facts.Cookie, level: str, said: str) -> None:
    finding = parts.check_cookie(cookie)
    assert finding.level == level and said in finding.text
    assert finding.check == ("upstream cookie" if cookie.is_upstream else "cookie")


FITS = facts.Versions("0.2.0", "0.2.0", True, ())


@pytest.mark.parametrize(
    ("versions", "formats", "has_upstream", "check", "level", "said"),
    [
        (FITS, facts.Formats(), False, "versions", "ok", "trackd 0.2.0"),
        (replace(FITS, installed="0.1.0"), facts.Formats(), False, "versions", "warning", "two are mixed"),
        (replace(FITS, has_sdk=False), facts.Formats(), False, "versions", "trouble", "not the SDK"),
        (FITS, facts.Formats(), False, "formats", "ok", "every file"),
        (FITS, facts.Formats((facts.Newer("/w", 3, 1),)), False, "formats", "trouble", "/w has format 3"),
    ],
)
def test_parts_fit_together(
    versions: facts.Versions, formats: facts.Formats, has_upstream: bool, check: str, level: str, said: str
) -> None:
    (finding,) = said_by(parts.check_versions(versions, formats, has_upstream=has_upstream), check)
    assert finding.level == level and said in finding.text


def test_without_hub_parts_an_upstream_is_needed() -> None:
    base = replace(FITS, missing_hub=("duckdb",))
    found = list(parts.check_versions(base, facts.Formats(), has_upstream=False))
    assert any(f.level == "warning" and "duckdb" in f.text and "trackd[hub]" in f.advice for f in found)
    assert {f.level for f in parts.check_versions(base, facts.Formats(), has_upstream=True)} == {"ok"}


def test_a_daemon_of_another_version_is_named() -> None:
    (finding,) = parts.check_daemon_version(ANSWERS, "0.2.0")
    assert finding.level == "note" and "version 0.1.0, this is 0.2.0" in finding.text
    assert not list(parts.check_daemon_version(ANSWERS, "0.1.0"))
    assert not list(parts.check_daemon_version(SILENT, "0.2.0"))


@pytest.mark.parametrize("outcome", ["unresolved", "unreachable", "silent", "cookie", "impostor", "version", "refused"])
def test_an_upstream_that_does_not_take_us_is_trouble(outcome: Any) -> None:
    (finding,) = parts.check_upstream(facts.Upstream("hub:1", outcome, "why"))
    assert finding.level == "trouble" and finding.text == "hub:1: why" and finding.advice


def test_an_upstream_that_takes_us_is_fine_unless_its_clock_differs() -> None:
    assert [f.level for f in parts.check_upstream(facts.Upstream("", "embedded"))] == ["ok"]
    assert [f.level for f in parts.check_upstream(facts.Upstream("hub:1", "ok", skew_s=-30.0))] == ["ok"]
    for skew, word in ((31.0, "31 s ahead of ours"), (-90.0, "90 s behind ours")):
        _, clock = parts.check_upstream(facts.Upstream("hub:1", "ok", skew_s=skew))
        assert (clock.check, clock.level) == ("clock", "warning") and word in clock.text


LANE = facts.Lane("/s/1", "dead", False, 10, 4)
SERVED = replace(LANE, owner="alive", has_courier=True)


@pytest.mark.parametrize(
    ("backlog", "level", "said", "advice"),
    [
        (facts.Backlog(), "ok", "nothing waits", ""),
        (facts.Backlog((LANE, replace(LANE, last_seq=1, durable=0))), "warning", "left 7 records in /s/1", "flush"),
        (facts.Backlog((replace(LANE, durable=10),)), "note", "/s/1 is left over, all of it sent", ""),
        (facts.Backlog((replace(LANE, owner="alive"),)), "warning", "no courier serves it", "trackd flush"),
        (facts.Backlog((SERVED,)), "note", "6 records in /s/1, on the way", ""),
        (facts.Backlog((replace(LANE, has_courier=True),)), "note", ", on the way", ""),
        (facts.Backlog((replace(SERVED, durable=10),)), "ok", "nothing waits", ""),
        (facts.Backlog(unreadable=("/s/2/x.head (no spool head)",)), "warning", "/s/2/x.head", "trackd flush"),
        (facts.Backlog(wal_path="/w", wal_records=3, wal_bytes=9), "warning", "/w holds 3 records not", "trackd flush"),
        (facts.Backlog(wal_path="/w", wal_records=None, wal_bytes=9), "warning", "cannot be told", "trackd flush"),
        (facts.Backlog(wal_path="/w", wal_records=0, wal_bytes=9), "ok", "nothing waits", ""),
        (facts.Backlog(offline=(facts.Offline("/r", 2048, 7),)), "note", "(7 records, 2.0 KiB)", "trackd flush /r"),
    ],
)  # fmt: skip
def test_what_only_this_disk_has_is_counted(backlog: facts.Backlog, level: str, said: str, advice: str) -> None:
    (finding,) = parts.check_backlog(backlog)
    assert finding.level == level and said in finding.text and advice in finding.advice
