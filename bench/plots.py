"""Plots of a run: each workload's figures over its sizes."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

from bench.results import Result
from bench.workloads import describe

mpl.use("Agg")
PLOTTED = ("CPU us", "PostgreSQL", "p50", "p99", "KiB")


def plot(directory: Path, results: Sequence[Result]) -> None:
    """Draw every workload that was run in several sizes."""
    for workload, group in groupby(results, key=lambda result: result.workload):
        found = list(group)
        if is_plotted(found):
            figure = draw(workload, found)
            figure.savefig(directory / plot_name(workload), dpi=120)
            pyplot.close(figure)


def is_plotted(results: Sequence[Result]) -> bool:
    """Tell whether there are several sizes, to draw a line through."""
    return len({result.size for result in results}) > 1


def plot_name(workload: str) -> str:
    return f"{workload.replace(' ', '-')}.png"


def draw(workload: str, results: Sequence[Result]) -> Any:
    names = [name for name in results[0].figures if any(mark in name for mark in PLOTTED) and "after" not in name]
    figure, axes = pyplot.subplots(1, len(names), figsize=(4.2 * len(names), 3.4), layout="constrained", squeeze=False)
    figure.suptitle(f"{workload}: {describe(workload).rstrip('.')}", fontsize=10)
    for axis, name in zip(axes[0], names, strict=True):
        for server in dict.fromkeys(result.server for result in results):
            points = [(r.size, r.figures[name]) for r in results if r.server == server and name in r.figures]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=server)
        axis.set(title=name, xscale="log", ylim=(0, None), xlabel="size")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    return figure
