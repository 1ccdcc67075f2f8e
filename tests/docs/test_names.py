"""Settings, flags, modules and commands that the documents name are in the code.

Lab notes and the changelog are left out: they keep the names of their day.
"""

import re
from pathlib import Path

import pytest

from mbrl_bilevel.scripts.main import COMMANDS

ROOT = Path(__file__).parents[2]
DATED = ("CHANGELOG.md", "lab-notes")
DOCUMENTS = [
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if not any(part in DATED for part in path.parts)
]
SOURCES = [
    path
    for folder in ("mbrl_bilevel", "agents", "envs", "scripts")
    for path in (ROOT / folder).rglob("*.py")
]
CODE = "\n".join(path.read_text() for path in SOURCES)
# Those of the command line that are on by default are switched off by --no-NAME; others are not.
ON = {
    f"--no-{name.replace('_', '-')}"
    for path in (ROOT / "scripts/flags").glob("*.py")
    for name in re.findall(r"^    (\w+): bool = True", path.read_text(), flags=re.M)
}
# Of other programs: uv, pytest, sphinx-build, tensorboard, ray.
OTHERS = {"--group", "--extra", "--logdir", "--help", "--head", "--port"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_is_in_the_code(document: Path) -> None:
    text = document.read_text()
    settings = set(re.findall(r"`(\w+Settings)`", text))
    assert [name for name in settings if f"class {name}" not in CODE] == []
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - OTHERS - ON
    fields = {flag: re.escape(flag[2:].replace("-", "_")) for flag in flags}
    # A program of the page may define what its commands name.
    code = "\n".join([CODE, *re.findall(r"```python\n(.*?)```", text, flags=re.S)])
    unknown = {f for f, field in fields.items() if not re.search(rf"\b{field}\b", code)}
    assert unknown == set()
    modules = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text)) - {"agents/x.py"}
    missing = {m for m in modules if not (ROOT / m).exists() and not _in_package(m)}
    assert {m for m in missing if "/a/" not in m and "test_x" not in m} == set()
    commands = set(re.findall(r"(?:uv run |`)mbrl-bilevel ([a-z][a-z-]+)", text))
    assert commands - set(COMMANDS) == set()


def _in_package(module: str) -> bool:
    return (ROOT / "mbrl_bilevel" / module).exists()
