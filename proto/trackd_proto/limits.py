"""Sizes that both ends of a connection rely on. Changing one is a protocol change."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

MAX_RECORD_BYTES: Final = 1 * MIB
"""One encoded record. Larger values become blobs or are split by key."""

MAX_BATCH_BYTES: Final = 2 * MIB
"""Uncompressed data of one batch (a single record always fits)."""

MAX_REQUEST_BYTES: Final = 8 * MIB
"""One gRPC message in either direction."""

MAX_REQUEST_ENTRIES: Final = 65_536
"""Batches, or writer ids, in one gRPC message: more of them are refused before they are parsed."""

MAX_DEPTH: Final = 32
"""Nesting of a logged value."""

MAX_STEP: Final = 2**62 - 1
"""A step or a time in microseconds, either way: the difference of any two, and the step behind, fit 64 bits."""

MAX_LEAVES: Final = 100_000
"""Scalars in one row."""

LOSS_REASONS: Final = ("full", "damaged", "trimmed", "rejected", "restored", "policy")
"""Why seqs can be declared lost: no space, bad bytes, sender no longer has them, refused by the
hub, hub restored from a backup, thinned by a policy."""
