"""Settings as config.yaml holds them."""

from dataclasses import astuple, is_dataclass
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """A setting as text, number or list."""
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return list(astuple(value))
    return list(value) if isinstance(value, tuple) else value
