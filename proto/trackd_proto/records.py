"""Records: the immutable facts that a writer's stream consists of.

A record is one msgpack array ``[kind, time_us, x, body]``:

======== ======= ======================================================================
field    type    meaning
======== ======= ======================================================================
kind     int     one of the constants below; an unknown kind is stored, never refused
time_us  i64     when `log()` was called: microseconds since the epoch, by the writer's
                 one (wall, monotonic) anchor, so that it never runs backwards in a process
x        i64     ROW: the step.  ROW_ORDINAL: the row's number in (attempt, writer).
                 Every other kind: 0
body     map     see the kind
======== ======= ======================================================================

A newer version may add elements behind these four, and kinds in which the other three are something else. Whoever
does not know them takes the four, or nothing, and keeps the record as it came; neither is a loss.

Values inside a body: nil, bool, i64, u64, float64 (NaN and infinities included), str, bin, arrays and
maps with str keys (a key that is not a str is read as ``str(key)``). What msgpack cannot say is a
map with the single key ``"__trackd__"``:

=============================== =====================================================
``{"__trackd__": ["int", s]}``  integer beyond 64 bits, decimal digits in `s`
``{"__trackd__": ["repr", s]}`` a value that cannot be stored, as its repr
=============================== =====================================================

Nested maps in a row are one path: ``{"a": {"b": 1}}`` is the series ``a.b``.

The first record of every writer is START: it says which run and attempt the writer belongs to. Records of
one run are ordered by the order key (attempt start, time_us, writer_id, seq), whatever order they arrive in.
"""

from typing import Any, Final

ROW: Final = 1
"""A history row at an explicit step. body = {key: value}."""

ROW_ORDINAL: Final = 2
"""A history row at ordinal `x`; its step is the attempt's base + ordinal. body = {key: value}."""

START: Final = 3
"""First record of a writer. body = {
  "project": str, "run_id": str, "entity": str | nil,
  "attempt": str (hex UUID, shared by all writers of one init()), "attempt_start_us": int,
  "writer": {"role": "main" | "nested" | "fork" | "courier" | "sampler", "pid": int, "host": str,
             "parent": str (hex) | nil},
  "name": str, "notes": str | nil, "tags": [str], "group": str | nil, "job_type": str | nil,
  "created_us": int, "sdk": str, "python": str, "program": str | nil, "user": str, "resume": str | nil,
  "is_name_generated": bool, "branch": {"run_id": str, "step": int}}
`branch` stands where the attempt begins behind a step of its own run (`resume_from`) or of another (`fork_from`).
Only the main writer's START carries name, is_name_generated, notes, tags, group, job_type; others leave them out.
A generated name only counts while nobody gave one; of several the earliest."""

CONFIG: Final = 4
"""Config values. body = {key: value}; top-level keys replace. Last writer wins by order key, key by key."""

SUMMARY: Final = 5
"""Explicit summary writes. body = {"set": {dotted path: value}, "del": [dotted path]}. Beat automatic values."""

EXIT: Final = 6
"""The attempt ended. body = {"state": "finished" | "failed" | "killed" | "preempted" | "crashed" | "lost contact",
  "exit_code": int | nil, "cause": str | nil, "traceback": str (its tail; may be absent),
  "is_assumed": true (else absent)}. Written by the main writer; by the courier when the trainer died without one, or
with another exit code than the main writer assumed. The main writer's EXIT is stronger than a courier's, except an
assumed one: Python does not tell a program with which code it is leaving. Of equals the later one counts."""

META: Final = 7
"""Facts gathered about the attempt (git, hardware, packages, refused rows). body = {key: value}; last wins per key."""

UPDATE: Final = 8
"""Edits of the run's own fields by its script: body = any of {"name", "notes", "tags", "group"}."""

SYSTEM: Final = 9
"""System metrics (stream "system", x axis = time). body = {key: number}."""

KINDS: Final = (ROW, ROW_ORDINAL, START, CONFIG, SUMMARY, EXIT, META, UPDATE, SYSTEM)

TAG: Final = "__trackd__"


def tagged_int(value: int) -> dict[str, list[str]]:
    """An integer that does not fit 64 bits."""
    return {TAG: ["int", str(value)]}


def tagged_repr(text: str) -> dict[str, list[str]]:
    """A value that could not be stored, as text."""
    return {TAG: ["repr", text]}


def restore(value: Any) -> Any:
    """The value with the tagged maps as what they mean."""
    if isinstance(value, dict):
        if len(value) == 1 and TAG in value:
            kind, text = value[TAG]
            return int(text) if kind == "int" else text
        return {key: restore(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restore(item) for item in value]
    return value
