"""What a stream is told of its writers."""

from trackd_daemon.ingest.sessions import Sessions
from trackd_proto.v1 import ingest_pb2


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


def test_a_notice_is_kept_for_those_that_are_known_only() -> None:
    sessions = Sessions()
    stream = sessions.open()
    for writer_id in (b"spoken for", b"known", b"neither"):
        sessions.notify(ingest_pb2.Notice(writer_id=writer_id, message="m"))
    sessions.join(stream, b"spoken for")
    sessions.forget_notices(sessions.writers() | {b"known"})
    for writer_id in (b"known", b"neither"):
        sessions.join(stream, writer_id)
    assert stream.notices.keys() == {b"spoken for", b"known"}
    sessions.notify(ingest_pb2.Notice(writer_id=b"neither", message="m"))
    assert b"neither" in stream.notices, "told again when there is something to tell"
