"""The binary answer of a chart query. Pure.

::

    u32 n (little endian)   JSON header of n bytes   zeros to a multiple of 8   float64 columns back to back

Each series' columns stand one after the other from byte `offset` of the data part, `n` little-endian float64 each, so
that a browser makes typed arrays over the answer without copying or parsing a number.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from trackd_daemon.ports import SampledSeries

MEDIA_TYPE: Final = "application/octet-stream"
COLUMNS: Final = ("x", "last", "min", "max", "mean", "min_x", "max_x", "count", "flags")
_LENGTH: Final = struct.Struct("<I")


def encode(series: Sequence[SampledSeries], versions: Mapping[str, int]) -> bytes:
    """The whole answer. `versions`: "project/run" to the run's version that the answer is at least as new as."""
    heads: list[dict[str, object]] = []
    parts: list[bytes] = []
    offset = 0
    for s in series:
        columns = b"".join([np.asarray(getattr(s, name), dtype="<f8").tobytes() for name in COLUMNS])
        heads.append(
            {
                "run": list(s.run),
                "key": s.key,
                "n": len(s.x),
                "total": int(s.total),
                "columns": COLUMNS,
                "offset": offset,
            }
        )
        parts.append(columns)
        offset += len(columns)
    head = msgspec.json.encode({"series": heads, "version": dict(versions)})
    padding = b"\0" * (-(_LENGTH.size + len(head)) % 8)
    return b"".join([_LENGTH.pack(len(head)), head, padding, *parts])
