"""Modules of one's own on the command line: what is refused, and in which words."""

import sys

import pytest

from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.plugins import VARIABLE
from mbrl_bilevel.scripts.main import run

TAKEN = """
from dataclasses import dataclass
from mbrl_bilevel import OBJECTIVES, ObjectiveSpec

@dataclass(frozen=True, kw_only=True)
class Mine(ObjectiveSpec):
    pass

OBJECTIVES.register("nll", Mine, print)
"""
REFUSED = {
    "absent_plugin": (None, "cannot be imported (ModuleNotFoundError: No module named"),
    "broken_plugin": ("1 / 0", "cannot be imported (ZeroDivisionError: division by zero)"),
    "empty_plugin": ("x = 1", "registers nothing: it must register"),
    "taken_plugin": (TAKEN, "objective 'nll' is registered already: choose another name"),
}


@pytest.mark.situation("refused")
@pytest.mark.parametrize("module", REFUSED)
def test_what_is_no_plugin_ends_the_command(module, tmp_path, monkeypatch, capsys):
    program, words = REFUSED[module]
    if program is not None:
        (tmp_path / f"{module}.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(VARIABLE, "")
    before = OBJECTIVES.names
    line = ["train-model", "--plugin", module, "--dataset", "a/b-v0", "--out", "run"]
    assert run(line) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"mbrl-bilevel train-model: --plugin {module}")
    assert words in error
    assert OBJECTIVES.names == before
    assert module not in sys.modules
