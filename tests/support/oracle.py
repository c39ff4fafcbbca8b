"""Who knows which rows log() has returned for: a pipe that trainers write to, read by a process that nothing befalls.

`python -c ... support.oracle.train(...)` is such a trainer. What a row holds follows from (trainer, number), so that
wrong bytes are seen as well as missing ones.
"""

from __future__ import annotations

import os
import random
import struct
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

_SAID: Final = struct.Struct("<IIQ")
_FENCE: Final = 0xFFFFFFFF
PROJECT: Final = "kills"
TRAINER: Final = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); "
    "from support.oracle import train; train(sys.argv[1:])"
)


def content(trainer: int, number: int, pad_bytes: int) -> dict[str, Any]:
    """The row that this trainer logs as its `number`th; nothing in it can be compressed."""
    chance = random.Random(trainer * 1_000_003 + number)
    row: dict[str, Any] = {"i": number, "trainer": trainer, "x": chance.random(), "y": chance.random()}
    return row | ({"pad": chance.randbytes(pad_bytes // 2).hex()} if pad_bytes else {})


def train(arguments: list[str]) -> None:
    """A training process: RUN_ID TRAINER ROWS PAD_BYTES REST_S PIPE PAUSE_FILE. Says each row that log() took."""
    run_id, trainer, rows, pad_bytes = arguments[0], int(arguments[1]), int(arguments[2]), int(arguments[3])
    rest_s, pipe, pause = float(arguments[4]), int(arguments[5]), arguments[6]
    import trackd

    run = trackd.init(project=PROJECT, id=run_id)
    for number in range(rows):
        row = content(trainer, number, pad_bytes)
        began = time.perf_counter_ns()
        run.log(row)
        took_us = (time.perf_counter_ns() - began) // 1000
        os.write(pipe, _SAID.pack(trainer, min(took_us, 0xFFFFFFFF), number + 1))
        time.sleep(rest_s)
        while os.path.exists(pause):  # noqa: PTH110
            time.sleep(0.01)
    run.finish()
    sys.exit(0)


class Oracle:
    """What the trainers have said. The pipe's writing end is for them to inherit."""

    def __init__(self) -> None:
        self._read_end, self.pipe = os.pipe()
        os.set_inheritable(self.pipe, True)
        self._returned: dict[int, int] = {}
        self._times_us: list[int] = []
        self._fences: dict[int, threading.Event] = {}
        self._next_fence = 0
        self._thread = threading.Thread(target=self._listen, name="oracle", daemon=True)
        self._thread.start()

    def returned(self) -> dict[int, int]:
        """Rows that log() has returned for, by trainer; everything said before this call is in it."""
        self._next_fence += 1
        event = self._fences[self._next_fence] = threading.Event()
        os.write(self.pipe, _SAID.pack(_FENCE, 0, self._next_fence))
        assert event.wait(30), "the oracle does not listen"
        return dict(self._returned)

    def log_times_us(self) -> list[int]:
        """Microseconds that each log() took, sorted."""
        self.returned()
        return sorted(self._times_us)

    def close(self) -> None:
        """Stop listening (trainers that still live get EPIPE)."""
        os.close(self.pipe)
        self._thread.join(10)
        os.close(self._read_end)

    def _listen(self) -> None:
        left = b""
        while data := os.read(self._read_end, 1 << 16):
            left += data
            whole = len(left) // _SAID.size * _SAID.size
            for trainer, took_us, number in _SAID.iter_unpack(left[:whole]):
                if trainer == _FENCE:
                    self._fences.pop(number).set()
                else:
                    self._returned[trainer] = max(number, self._returned.get(trainer, 0))
                    self._times_us.append(took_us)
            left = left[whole:]


def judge(trainer: int, pad_bytes: int, returned: int, rows: Iterable[Mapping[str, Any]], first: int = 0) -> list[str]:
    """What is wrong with a run's rows from number `first` on, of which log() returned for `returned`. One more may be
    there: the trainer was killed before it could say so."""
    numbers: list[int] = []
    problems = []
    for row in rows:
        number = row["i"]
        numbers.append(number)
        expected = content(trainer, number, pad_bytes)
        if any(row.get(key) != value for key, value in expected.items()):
            problems.append(f"wrong content of row {number}")
    if missing := set(range(first, returned)) - set(numbers):
        problems.append(f"missing {len(missing)}: {sorted(missing)[:5]}")
    if doubled := len(numbers) - len(set(numbers)):
        problems.append(f"doubled {doubled}")
    if numbers != sorted(numbers):
        problems.append("out of order")
    if surplus := [number for number in numbers if not first <= number <= returned]:
        problems.append(f"never logged: {surplus[:5]}")
    return problems
