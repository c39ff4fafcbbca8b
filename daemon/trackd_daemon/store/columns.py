"""From decoded blocks to the columns that the series store appends. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackd_daemon.store import steps
from trackd_daemon.store.decode import Block

Columns = dict[str, NDArray[Any]]


class PointsBuilder:
    """Gathers the blocks of one group commit."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[tuple[NDArray[Any], ...]]] = {}

    def add(self, run_no: int, writer_no: int, block: Block, key_numbers: NDArray[np.int32]) -> None:
        """The points of a block, key by key."""
        rows, width = len(block.seq), len(key_numbers)
        size = rows * width
        piece = (
            np.full(size, run_no, dtype=np.int32),
            np.repeat(key_numbers, rows),
            np.full(size, steps.lane_number(writer_no, block.kind), dtype=np.int32),
            np.tile(block.seq, width),
            np.tile(block.step, width),
            np.tile(block.time_us, width),
            block.values.reshape(-1),
        )
        self._pieces.setdefault(block.column, []).append(piece)

    def columns(self) -> Mapping[str, Columns]:
        """Columns by kind of value."""
        names = ("run", "key", "lane", "seq", "step", "time", "v")
        result: dict[str, Columns] = {}
        for kind, pieces in self._pieces.items():
            columns = [np.concatenate(column) if len(pieces) > 1 else column[0] for column in zip(*pieces, strict=True)]
            result[kind] = dict(zip(names, columns, strict=True))
        return result
