"""Records that a hub rejected, each in a file of its own: declared lost there, and not thrown away here.

::

    <instance>/parked/<writer id as hex>-<seq>.msgpack     the record as it was logged (proto/trackd_proto/records.py)
"""

from pathlib import Path
from typing import Final

from trackd_proto.limits import MIB
from trackd_proto.local import places

_MOST_BYTES: Final = 64 * MIB
"""Of all files together; what is rejected beyond it is only declared."""
_SUFFIX: Final = ".msgpack"


class Parked:
    """The directory. Blocks on the disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def keep(self, writer_id: bytes, seq: int, record: bytes) -> Path | None:
        """Write one record; None if there is no room. Raises OSError."""
        places.private_directory(self.directory)
        if sum(path.stat().st_size for path in self.directory.iterdir()) + len(record) > _MOST_BYTES:
            return None
        path = self._path(writer_id, seq)
        places.write_private(path, record)
        return path

    def drop(self, writer_id: bytes, seq: int) -> None:
        """It was no fault of the record's."""
        self._path(writer_id, seq).unlink(missing_ok=True)

    def count(self) -> int:
        """Files that lie here."""
        try:
            return sum(path.suffix == _SUFFIX for path in self.directory.iterdir())
        except OSError:
            return 0

    def _path(self, writer_id: bytes, seq: int) -> Path:
        return self.directory / f"{writer_id.hex()}-{seq}{_SUFFIX}"
