"""Metrics as JSON, which knows no NaN and no infinity."""

import math
from collections.abc import Mapping
from typing import Any


def finite_or_null(value: Any) -> Any:
    """The same values, plain, with None in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): finite_or_null(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
