"""Commits told to browsers: merged per run, so that a slow reader holds one change per run and never a queue."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from trackd_daemon.model import RunChange
from trackd_daemon.ports import ChangePort

PERIOD_S: Final = 0.25
"""At most four changes a second per run."""
HEARTBEAT_S: Final = 15.0
MAX_NAMES: Final = 1_000


def merge(old: RunChange, new: RunChange) -> RunChange:
    """Both changes as one; `new` was committed later."""
    keys = dict.fromkeys([*old.keys, *new.keys])
    has_more = old.has_more_keys or new.has_more_keys or len(keys) > MAX_NAMES
    last = {**old.last, **new.last}
    if len(last) > MAX_NAMES:
        last = dict(list(last.items())[-MAX_NAMES:])
    return RunChange(
        project=new.project,
        run_id=new.run_id,
        version=max(old.version, new.version),
        keys=() if has_more else tuple(keys),
        has_more_keys=has_more,
        last=last,
        fields=tuple(dict.fromkeys([*old.fields, *new.fields])),
    )


Pending = dict[tuple[str, str], RunChange]


def add(pending: Pending, change: RunChange) -> None:
    """Merge a change into what waits to be told."""
    name = (change.project, change.run_id)
    old = pending.get(name)
    pending[name] = change if old is None else merge(old, change)


class Watcher:
    """One reader of the stream; lives on the event loop."""

    def __init__(self, project: str | None, run_id: str | None) -> None:
        self._project = project
        self._run_id = run_id
        self._pending: Pending = {}
        self._woken = asyncio.Event()
        self._is_closed = False

    def offer(self, change: RunChange) -> None:
        """Take the change if this reader watches its run."""
        if self._project not in {None, change.project} or self._run_id not in {None, change.run_id}:
            return
        add(self._pending, change)
        self._woken.set()

    def close(self) -> None:
        """End the stream after what is pending."""
        self._is_closed = True
        self._woken.set()

    async def changes(self) -> AsyncIterator[list[RunChange]]:
        """Merged changes, at most one per run each `PERIOD_S`; an empty list each `HEARTBEAT_S` of silence."""
        while not self._is_closed:
            try:
                await asyncio.wait_for(self._woken.wait(), HEARTBEAT_S)
            except asyncio.TimeoutError:
                yield []
                continue
            self._woken.clear()
            taken, self._pending = self._pending, {}
            if taken:
                yield list(taken.values())
                if not self._is_closed:
                    await asyncio.sleep(PERIOD_S)


class Broker:
    """Carries commits from the ingest thread to the watchers on the event loop."""

    def __init__(self, store: ChangePort) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._pending: Pending = {}
        self._is_scheduled = False
        self._watchers: set[Watcher] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def open(self) -> None:
        """Listen to the store. Call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._unsubscribe = self._store.subscribe(self._take)

    def close(self) -> None:
        """End every stream. Call on the event loop; safe twice."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for watcher in tuple(self._watchers):
            watcher.close()

    @property
    def watchers(self) -> int:
        """Streams that are open now."""
        return len(self._watchers)

    def watch(self, project: str | None, run_id: str | None) -> Watcher:
        """A new watcher; give it back with `leave`."""
        watcher = Watcher(project, run_id)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """The reader has gone."""
        self._watchers.discard(watcher)

    def _take(self, changes: Sequence[RunChange]) -> None:
        """On the ingest thread: merge, and wake the loop once however many commits come before it runs."""
        loop = self._loop
        if loop is None or not self._watchers:
            return
        with self._lock:
            for change in changes:
                add(self._pending, change)
            is_scheduled, self._is_scheduled = self._is_scheduled, True
        if not is_scheduled:
            try:
                loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop has closed: nobody is watching any more
                pass

    def _deliver(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
            self._is_scheduled = False
        for change in pending.values():
            for watcher in self._watchers:
                watcher.offer(change)
