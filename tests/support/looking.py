"""Looking at something all the time, beside what is being tested."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY_S = 0.005


@contextmanager
def looking(look: Callable[[], None]) -> Iterator[None]:
    """Calls `look` every 5 ms from a thread of its own, until the end."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_EVERY_S):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
