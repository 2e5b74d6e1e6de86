"""What comes out of a measurement."""

from dataclasses import dataclass

Figures = dict[str, float]  # by name, the unit in it


@dataclass(frozen=True, slots=True)
class Result:
    """What a server did under a workload of a size, or why there are no figures."""

    workload: str
    size: int
    server: str
    figures: Figures
    failure: str = ""
