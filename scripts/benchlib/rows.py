"""The rows that every probe logs: a cycle of 64, so that values differ from call to call as they do in training."""

import importlib
import random
from typing import Any


def rows(scalars: int, kind: str = "float", *, decimals: int | None = None) -> list[dict[str, Any]]:
    """64 rows of `scalars` values. `kind`: float, numpy (np.float64 and np.float32 by turns) or torch (0-d float32)."""
    chance = random.Random(1)
    make = _maker(kind)
    table = [[chance.random() for _ in range(scalars)] for _ in range(64)]
    if decimals is not None:
        table = [[round(value, decimals) for value in row] for row in table]
    return [{f"train/metric_{i}": make(i, value) for i, value in enumerate(row)} for row in table]


def _maker(kind: str) -> Any:
    if kind == "float":
        return lambda i, value: value
    if kind == "numpy":
        import numpy as np  # noqa: PLC0415 - only the probes that need it have it

        return lambda i, value: np.float64(value) if i % 2 else np.float32(value)
    if kind == "torch":
        torch = importlib.import_module("torch")  # not in the project's own environment

        return lambda i, value: torch.tensor(value)
    raise ValueError(f"unknown kind of value {kind!r}")
