"""Looking at every bytecode of the SDK that a call executes, to do something between two of them."""

import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def watch(call: Callable[[], None], see: Callable[[int, FrameType], None]) -> int:
    """`see(n, frame)` before the n-th bytecode, from 1; what it raises comes out of `call`. How many there were."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
            see(count, frame)
            return trace
        if not _is_of_the_sdk(frame.f_code.co_filename):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return count


@functools.cache
def _is_of_the_sdk(filename: str) -> bool:
    return "/trackd/" in filename or filename.startswith("<mutant")  # a seeded mistake in it (tests/sim/mutants.py)
