"""Training processes: their lanes, what they were promised, and interrupts and kills between any two bytecodes."""

import dis
import functools
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType

from support.opcodes import watch
from trackd.courier.owner import Ending
from trackd.lane import Lane

_MOST_OPCODES = 400
"""In one `row()`, with a roll of chunks in it; where it ends before that nothing is injected."""
_PADS = (0, 0, 10, 10, 200, 200, 1500)
_IS_LOSING = 0


class Killed(BaseException):
    """SIGKILL between two bytecodes of the trainer."""


@functools.cache
def _looks_for_exceptions_after(code: CodeType) -> bytes:
    """By offset: 1 if CPython looks for an exception behind that instruction."""
    marks = bytearray(len(code.co_code))
    for at in dis.get_instructions(code):
        marks[at.offset] = at.opname.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
    return bytes(marks)


def stop_at(opcode: int, error: BaseException, call: Callable[[], None]) -> bool:
    """Raise `error` before the n-th bytecode that `call` executes in the SDK; whether it got that far.

    SIGKILL falls anywhere; an exception only where CPython looks for one: behind a call, at the begin of a function
    and where a loop jumps back.
    """
    before: dict[FrameType, int] = {}
    is_anywhere = isinstance(error, Killed)

    def see(number: int, frame: FrameType) -> None:
        if number >= opcode:
            previous = before.get(frame, -1)
            if is_anywhere or (previous >= 0 and _looks_for_exceptions_after(frame.f_code)[previous]):
                sys.settrace(None)
                raise error
        before[frame] = frame.f_lasti

    return watch(call, see) >= opcode


@dataclass
class Writer:
    """One lane, what its trainer was promised, and what it may have written without being told."""

    lane: Lane
    is_dead: bool = False
    is_closed: bool = False
    calls: int = 0
    promised: dict[int, int] = field(default_factory=dict)
    """Number of the call -> seq that was the last one when it returned."""
    dropped: set[int] = field(default_factory=set)
    """Seqs that found no space: they must be declared lost."""
    unsure: set[int] = field(default_factory=set)
    """Seqs that a call may have taken that never returned."""
    may_lose: bool = False

    @property
    def writer_id(self) -> bytes:
        """Its id."""
        return self.lane.writer_id

    def log(self, rng: random.Random, fault: str) -> None:
        """One row; `fault` "", "interrupt" or "kill": at a random bytecode."""
        number, self.calls = self.calls, self.calls + 1
        row = {"i": number, "v": value_of(number), "pad": "p" * rng.choice(_PADS)}
        if rng.random() < 0.1:
            row[f"k{number}"] = 1  # a new shape: the slow path
        before = self.lane._state[3]
        try:
            if fault:
                error: BaseException = Killed() if fault == "kill" else KeyboardInterrupt()
                stop_at(rng.randrange(1, _MOST_OPCODES), error, lambda: self.lane.row(row))
            else:
                self.lane.row(row)
        except (Killed, KeyboardInterrupt) as error:
            self.is_dead = isinstance(error, Killed)
            self.unsure.add(before + 1)
            return
        seq = self.lane._state[3]
        if self.lane._state[1] == _IS_LOSING:
            self.dropped.add(seq)
        else:
            self.promised[number] = seq


def value_of(number: int) -> float:
    """What call `number` logs: wrong bytes would show."""
    return number * 1.37


class SimOwner:
    """A process that lives as long as the simulation says."""

    def __init__(self, is_dead: Callable[[], bool]) -> None:
        self.pid = 1
        self.is_dead = is_dead

    def ending(self, _memory: object = None) -> Ending:
        """Killed."""
        return Ending("killed", None, "simulated")

    def close(self) -> None:
        """Nothing is held."""
