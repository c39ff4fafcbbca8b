"""Versions of the distribution, the protocol and the byte formats."""

from typing import Final

VERSION: Final = "0.1.0"

PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 1

SPOOL_FORMAT: Final = 1
WAL_FORMAT: Final = 1
RECORD_FORMAT: Final = 1
