"""What a stream is told of its writers."""

from trackd_daemon.ingest.sessions import Sessions


def test_who_joins_hears_where_the_writer_is() -> None:
    """The watermark may have moved between the client's Resume and the first it sent: nobody would tell it again."""
    sessions = Sessions()
    stream = sessions.open()
    sessions.changed([b"w"])  # a commit before the stream spoke for the writer
    assert not stream.changed
    sessions.join(stream, b"w")
    assert stream.changed == {b"w"}
    assert stream.wake.is_set()


def test_it_hears_so_once() -> None:
    sessions = Sessions()
    stream = sessions.open()
    sessions.join(stream, b"w")
    stream.changed.clear()
    sessions.join(stream, b"w")
    assert not stream.changed
