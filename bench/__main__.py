"""Measure chatd beside what people use today, on this machine, in one run: `make bench`.

Each server is started anew for each workload, with the same model server and, where it keeps anything, a PostgreSQL of
its own. Writes a table, the figures as JSON, and plots.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path
from statistics import StatisticsError

import uvloop

from bench import report
from bench.results import Figures, Result
from bench.servers import Opener, installed, model_server
from bench.workloads import WORKLOADS

OPEN_FILES = 16_384


def main() -> None:
    servers = installed()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="default: all")
    parser.add_argument("--server", nargs="+", choices=servers, default=list(servers), help="default: all installed")
    parser.add_argument("--size", nargs="+", type=int, help="only these sizes: streams, readers, messages")
    parser.add_argument("--output", type=Path, default=Path(".bench/report"), help="directory of the report")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, most), most))
    plan = [
        (workload, size, server)
        for workload in options.workload
        for size in WORKLOADS[workload][1]
        if not options.size or size in options.size
        for server in options.server
        if server in (WORKLOADS[workload][2] or servers)
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(measure(plan, servers))
    report.write(options.output, results)


async def measure(plan: list[tuple[str, int, str]], servers: dict[str, Opener]) -> list[Result]:
    results = []
    async with model_server() as model:
        for done, (workload, size, name) in enumerate(plan, 1):
            begun = time.monotonic()
            print(f"{done}/{len(plan)} {workload} {size} {name}", end=" ", flush=True)
            try:
                figures, failure = await measure_one(workload, size, servers[name], model), ""
            except (RuntimeError, StatisticsError, ZeroDivisionError, OSError) as error:
                figures, failure = {}, f"failed: {error!r}"
            print(f"({time.monotonic() - begun:.0f} s)", failure or report.describe(figures), flush=True)
            results.append(Result(workload, size, name, figures, failure))
    return results


async def measure_one(workload: str, size: int, opener: Opener, model: str) -> Figures:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        async with opener(Path(directory), model) as server:
            return await WORKLOADS[workload][0](server, size)


if __name__ == "__main__":
    main()
