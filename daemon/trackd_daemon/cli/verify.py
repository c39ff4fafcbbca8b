"""What was logged against what the hub holds, writer by writer. `compare` is pure; `logged_here` reads files.

The logged side is RUN_DIR/logged.json, which the courier keeps, and the heads of spools that are still there; the hub's
side is the count and the rolling hash over all records that it stored of each writer.
"""

import contextlib
import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from trackd_proto import spool
from trackd_proto.layout import Instance

RUNS: Final = "trackd-runs"


@dataclass(frozen=True)
class Logged:
    """What a writer has logged, as far as this machine knows."""

    last_seq: int
    crc32: int | None
    """Rolling hash over the records up to `last_seq`; None where only the count is known (still being written)."""
    role: str = ""


@dataclass(frozen=True)
class Verdict:
    """One writer, compared."""

    writer_id: str
    role: str
    logged: int | None
    """Records logged, None if nothing here says so."""
    stored: int
    problem: str
    """"" if both agree."""

    @property
    def is_checked(self) -> bool:
        """Whether there was something to compare with."""
        return self.logged is not None


def compare(
    logged: Mapping[str, Logged], stored: Iterable[Mapping[str, Any]], damaged: Mapping[str, Path] | None = None
) -> list[Verdict]:
    """A verdict for every writer that either side knows.

    `damaged`: spool heads that cannot be read, by writer. Such a writer may have logged more than anybody knows.
    """
    damaged = damaged or {}
    hub = {writer["writer_id"]: writer for writer in stored}
    verdicts = []
    for writer_id in sorted({*logged, *hub}):
        mine, theirs = logged.get(writer_id), hub.get(writer_id)
        role = theirs["role"] if theirs else mine.role if mine else ""
        count = None if mine is None else mine.last_seq
        stored_count = theirs["records"] if theirs else 0
        problem = _problem(mine, theirs)
        if path := damaged.get(writer_id):
            unknown = f"{path} cannot be read: how much was logged is not known"
            problem = f"{problem}; {unknown}" if problem else unknown
        verdicts.append(Verdict(writer_id, role, count, stored_count, problem))
    return verdicts


def _problem(mine: Logged | None, theirs: Mapping[str, Any] | None) -> str:
    if theirs is None:
        assert mine is not None
        return f"the hub has none of its {mine.last_seq} records" if mine.last_seq else ""
    problems = [_lost(loss) for loss in theirs["losses"]]
    lost = sum(loss["count"] for loss in theirs["losses"])
    last = theirs["next_seq"] - 1
    if theirs["records"] + lost != last:
        problems.append(f"the hub counts {theirs['records']} records and {lost} lost up to record {last}")
    if mine is not None:
        if last < mine.last_seq:
            problems.append(f"records {last + 1} to {mine.last_seq} are not in the hub")
        elif mine.crc32 is not None and last > mine.last_seq:
            problems.append(f"the hub has records {mine.last_seq + 1} to {last}, which were not noted as logged here")
        elif mine.crc32 is not None and mine.crc32 != theirs["crc32"]:
            problems.append(f"the rolling hash differs: logged {mine.crc32:08x}, stored {theirs['crc32']:08x}")
    return "; ".join(problems)


def _lost(loss: Mapping[str, Any]) -> str:
    first, last = loss["first_seq"], loss["first_seq"] + loss["count"] - 1
    what = f"record {first} is" if first == last else f"records {first} to {last} are"
    return f"{what} declared lost ({loss['reason']})"


def is_good(verdicts: Iterable[Verdict]) -> bool:
    """Whether something was compared and everything agrees."""
    listed = list(verdicts)
    return any(v.is_checked for v in listed) and not any(v.problem for v in listed)


def without_parent(attempts: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each attempt that is a fork of a run of which nothing has arrived."""
    return [
        f"attempt {attempt['number']} begins with the rows of {attempt['from_run']} up to step {attempt['from_step']}, "
        "and the hub has nothing of that run: send it from where it was logged (`trackd flush`)"
        for attempt in attempts
        if attempt["from_run"] is not None and not attempt["from_known"]
    ]


def to_json(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """For programs."""
    return [asdict(verdict) for verdict in verdicts]


# ---------------------------------------------------------------------------------------------- the logged side


def logged_here(run_id: str, where: Instance, directories: Iterable[Path]) -> tuple[dict[str, Logged], list[Path]]:
    """Every writer of the run that this machine knows of, and the run directories that said so."""
    heads = dict(_heads(run_id, where.spool))
    places = [*directories, *(Path(target.run_dir) for target, _ in heads.values() if target.run_dir)]
    found: dict[str, Logged] = {}
    used = []
    for place in dict.fromkeys(path.resolve() for path in places):
        noted = _noted(place / "logged.json")
        if noted:
            used.append(place)
            found |= noted
    for writer_id, (target, last_seq) in heads.items():
        known = found.get(writer_id)
        # The head is written by the logging process itself, the note by its courier a moment later.
        if last_seq and (known is None or known.last_seq < last_seq):
            found[writer_id] = Logged(last_seq, None, target.role)
    return found, used


def run_directories(run_id: str, roots: Iterable[Path]) -> list[Path]:
    """`trackd-runs/run-<time>-<id>` below the roots, and roots that are such a directory themselves."""
    found = []
    for root in roots:
        if (root / "logged.json").exists():
            found.append(root)
        with contextlib.suppress(OSError):
            names = [entry for base in (root, root / RUNS) if base.is_dir() for entry in sorted(base.iterdir())]
            found += [path for path in names if path.name.startswith("run-") and path.name.endswith(f"-{run_id}")]
    return list(dict.fromkeys(found))


def _noted(path: Path) -> dict[str, Logged]:
    try:
        writers = json.loads(path.read_text())["writers"]
        return {
            writer_id: Logged(int(note["last_seq"]), int(note["crc32"]), str(note.get("role", "")))
            for writer_id, note in writers.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}): nothing to compare with") from error


def _heads(run_id: str, directory: Path) -> Iterable[tuple[str, tuple[spool.Target, int]]]:
    """Target and last assigned seq of the run's writers whose spools are still there."""
    for path in sorted(directory.glob("*/*.head")):
        found = _head(path)
        if found is not None and found[0].run_id == run_id:
            yield path.stem, found


def damaged_heads(directory: Path) -> dict[str, Path]:
    """Heads of spools that are there and cannot be read, by writer. To which run they belong only others can tell."""
    # Who is gone when looked at again was sent, and cleared by its courier.
    return {path.stem: path for path in sorted(directory.glob("*/*.head")) if _head(path) is None and path.exists()}


def _head(path: Path) -> tuple[spool.Target, int] | None:
    try:
        head = path.read_bytes()
        words = struct.unpack_from("=6Q", head)
        target = spool.get_target(head)
    except (OSError, struct.error, spool.SpoolError, msgspec.DecodeError):
        return None
    return (target, words[spool.ASSIGNED]) if words[spool.MAGIC] == spool.MAGIC_WORD else None


def usual_roots(home: Path, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where run directories are when nobody says otherwise."""
    roots = [Path(environ["TRACKD_DIR"]).expanduser()] if environ.get("TRACKD_DIR") else []
    with contextlib.suppress(OSError):
        roots.append(Path.cwd())
    return [*roots, home]
