"""Which segments are needed, as recovery folds it out of checkpoints."""

from trackd_daemon.wal.frames import Checkpoint
from trackd_daemon.wal.state import LogState

WRITER = bytes(16)


def checkpoint(received: int, acked: int = 0) -> list[Checkpoint]:
    return [Checkpoint(WRITER, received, acked, "embedded", "p", "r", 1)]


def test_a_segment_with_the_records_of_a_failed_sync_is_needed_although_an_earlier_one_was_read_to_hold_them() -> None:
    """Segment 1 ended with a failed sync: the disk may have dropped what recovery reads in it. Segment 2 holds it."""
    state = LogState()
    state.segments = {1: 100, 2: 100, 3: 100}
    state.append(1, state.writer(WRITER, "embedded", "p", "r"), 5, 1)
    state.load_checkpoint(checkpoint(received=0), previous_segment=1)
    state.load_checkpoint(checkpoint(received=5), previous_segment=2)
    assert state.needed() == {1, 2}
    state.acknowledge([(WRITER, 5)])
    assert state.collectable(3) == [1, 2]


def test_a_segment_without_news_of_a_writer_is_not_needed() -> None:
    """A checkpoint that repeats the one before says that nothing stands between."""
    state = LogState()
    state.segments = {1: 100, 2: 100, 3: 100}
    state.load_checkpoint(checkpoint(received=0), previous_segment=None)
    state.load_checkpoint(checkpoint(received=5), previous_segment=1)
    state.load_checkpoint(checkpoint(received=5), previous_segment=2)
    assert state.needed() == {1}
    state.load_checkpoint(checkpoint(received=5, acked=5), previous_segment=2)
    assert state.needed() == set()


def test_a_silent_writer_is_spoken_of_as_long_as_a_segment_holds_its_records() -> None:
    """A segment that could not be removed, and no word of the writer: its records would count as not committed."""
    day_us = 24 * 3600 * 1_000_000
    state = LogState()
    state.segments = {1: 100, 2: 100}
    state.append(1, state.writer(WRITER, "embedded", "p", "r"), 5, 1)
    state.acknowledge([(WRITER, 5)])
    assert [row.acked for row in state.checkpoint(2 * day_us)] == [5]
    del state.segments[1]
    assert state.checkpoint(day_us // 2) != [], "not silent for a day"
    assert state.checkpoint(2 * day_us) == []
