"""The names of all metrics, as the registry has them."""

from collections.abc import Iterator
from typing import Any

from chatd.metrics import Metrics

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}


def families() -> list[Any]:
    return list(Metrics().registry.collect())


def documented() -> set[str]:
    """Return the names as documentation has them: a histogram's without what its series add."""
    return {family.name + ("" if family.type == "histogram" else suffix) for family, suffix in named()}


def series() -> set[str]:
    """Return the names that expressions may use."""
    return {family.name + suffix for family, suffix in named()}


def named() -> Iterator[tuple[Any, str]]:
    return ((family, suffix) for family in families() for suffix in SUFFIXES[family.type])
