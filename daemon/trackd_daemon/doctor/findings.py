"""What `trackd doctor` says. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "note", "warning", "trouble"]
"""note: worth knowing, nothing to do; warning: works, and may not for long; trouble: something does not work."""

LEVELS: Final[tuple[Level, ...]] = ("ok", "note", "warning", "trouble")


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing."""

    check: str
    level: Level
    text: str
    advice: str = ""
    """What to do; for warnings and trouble."""


def is_trouble(findings: Iterable[Finding]) -> bool:
    """Whether something must be done."""
    return any(finding.level == "trouble" for finding in findings)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By level; within a level as they came."""
    return sorted(findings, key=lambda finding: -LEVELS.index(finding.level))


def bytes_text(size: int) -> str:
    """As people read it: 1.5 GiB."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def records_text(count: int) -> str:
    """1 record, 2,000 records."""
    return f"{count:,} record{'' if count == 1 else 's'}"
