"""The public names: what the packages say, what type checkers read, and what importing costs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("mbrl_bilevel", "mbrl_bilevel.agents", "mbrl_bilevel.envs")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there_and_type_checkers_read_the_same(package):
    module = importlib.import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(typed) == sorted(module.__all__) == dir(module)
    for name, place in typed.items():
        home = importlib.import_module(place.rpartition(".")[0])
        assert getattr(module, name) is getattr(home, name)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_is_that_of_a_module_which_would_stand_in_its_place(package):
    module = importlib.import_module(package)
    assert module.__file__ is not None
    files = {path.stem for path in Path(module.__file__).parent.iterdir()}
    assert not files & set(module.__all__)


def test_another_name_is_none():
    with pytest.raises(AttributeError, match="'mbrl_bilevel' has no attribute 'nonsense'"):
        importlib.import_module("mbrl_bilevel").nonsense  # noqa: B018


def test_importing_the_package_and_its_settings_does_not_import_torch():
    code = (
        "import sys, mbrl_bilevel as mb, mbrl_bilevel.agents, mbrl_bilevel.envs;"
        "mb.TwoMeansSettings(), mb.FitSettings(), mb.agents.SACSettings();"
        "print({'torch', 'numpy', 'gymnasium'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
