"""Summaries of many timings."""

from collections.abc import Sequence


def quantile(ordered: Sequence[float], q: float) -> float:
    """The value below which a share `q` of the sorted values lies (nearest rank, from below)."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def spread(nanoseconds: Sequence[int]) -> dict[str, float]:
    """p50, p99, p99.9 and the maximum, in microseconds."""
    ordered = sorted(nanoseconds)
    names = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: quantile(ordered, q) / 1e3 for name, q in names.items()}
