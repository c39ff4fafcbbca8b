"""What the log may take, and when it says so."""

import pytest
from trackd_daemon.wal.quota import Quota
from trackd_proto.limits import GIB


@pytest.mark.parametrize(
    ("log", "free", "inodes", "said"),
    [
        (0, 50 * GIB, 1000, ""),
        (10 * GIB, 50 * GIB, 1000, "quota of 10737418240"),
        (0, GIB - 1, 1000, "leaves alone"),
        (0, 50 * GIB, 7, "only 7 more files"),
    ],
)
def test_bytes_of_the_log_free_bytes_and_files_are_limits(log: int, free: int, inodes: int, said: str) -> None:
    reason = Quota().reason_full(log, free, 200 * GIB, inodes)
    assert (said in reason) if said else reason == ""


def test_at_seven_tenths_it_warns() -> None:
    quota = Quota(quota_bytes=1000)
    assert quota.warning(699, GIB) == ""
    assert "700 of the 1000 bytes" in quota.warning(700, GIB)
