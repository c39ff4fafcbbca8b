"""Compacts a store that no daemon has open."""

from pathlib import Path

from trackd_daemon.store.embedded import EmbeddedStore


def compact(directory: str) -> None:
    """Everything into sorted parts, as the daemon does by itself in time."""
    store = EmbeddedStore.open(Path(directory))
    try:
        store.compact()
    finally:
        store.close()
