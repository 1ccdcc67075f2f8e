"""What the settings of a planner may be."""

from mbrl_bilevel.errors import InputError

LARGEST_COUNT = 1_000_000


def check_counts(**counts: int) -> None:
    """InputError for the first of `counts` that is below 1 or above a million."""
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"planner {name} {count}: it must be at least 1")
        if count > LARGEST_COUNT:
            raise InputError(f"planner {name} {count}: it must be at most {LARGEST_COUNT}")


def check_ranges(**ranges: tuple[float, float, float]) -> None:
    """InputError for the first (value, low, high) whose value is not within [low, high]."""
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise InputError(f"planner {name} {value}: it must lie in [{low:g}, {high:g}]")


def check_elites(elites: int, samples: int) -> None:
    """InputError where more elites are wanted than there are samples."""
    if elites > samples:
        raise InputError(
            f"planner elites {elites}: there are only {samples} samples to choose them from"
        )
