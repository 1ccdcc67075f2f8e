"""The programs of a page: its Python blocks, each under the heading above it."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def programs(page: str) -> dict[str, str]:
    """Every Python block of a page, by its heading."""
    found: dict[str, str] = {}
    for section in re.split(r"^## ", (DOCS / page).read_text(), flags=re.M)[1:]:
        heading, _, text = section.partition("\n")
        (found[heading],) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    return found


def length(program: str) -> int:
    """Its lines, without empty ones."""
    return sum(bool(line.strip()) for line in program.splitlines())
