"""What `local/ask.py` answers about a run, in the words of the process that asked."""

from typing import Literal

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """What the hub knows of a run, if it could be asked."""

    status: Literal["found", "missing", "unknown"]
    why: str = ""
    """Of "unknown": what happened and what to do."""
    run: bytes = b""
    """Of "found": the run as docs/http-api.md has it, msgpack."""
