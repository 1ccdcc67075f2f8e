"""The layout that CONTRIBUTING describes: mirrored tests, sizes, names, imports that point down.

Every exception stands here with its reason.
"""

import ast
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_FOLDERS = ("agents", "envs", "scripts")
LONGEST_FILE, LONGEST_TEST, LONGEST_CLASS, MOST_PARAMETERS = 300, 400, 250, 12
FORBIDDEN_NAMES = {"utils", "common", "helpers", "base", "misc"}

# Folders of tests that belong to no single file of the code.
KINDS = {
    "docs": "the documentation and what stands in it",
    "faults": "processes killed, disks filled and files damaged while commands run",
    "situations": "inputs on which a result could be silently wrong, across several commands",
}
# Tests that mirror no file of the code.
WITHOUT_A_FILE = {
    "test_layout.py": "the layout itself",
    "test_readme.py": "the README",
    "bilevel/test_mutations.py": "faults put into the solver on purpose: are they found out?",
    "models/test_dtypes.py": "data of other number types than the model's weights",
    "models/test_offsets.py": "observations far from 0, from the file to the prediction",
    "bilevel/test_sampled.py": "second derivatives of sampled inner losses, by several estimators",
}

# What a folder may import beside its own files and the single files of the core.
BELOW = {
    "bilevel": set[str](),
    "data": set[str](),
    "planning": set[str](),
    "models": {"data"},
    "evaluation": {"data", "models"},
    "rewards": {"models"},
    "training": {"data", "models"},
    "objectives": {"bilevel", "data", "models", "rewards", "training"},
    "sanity": {"bilevel", "models", "objectives", "rewards"},
}
CORE = set(BELOW)
BELOW["envs"] = CORE
BELOW["agents"] = CORE | {"envs"}
BELOW["scripts"] = CORE | {"envs", "agents"}


def code_files() -> list[Path]:
    """Files of the package, each once: agents, envs and scripts are links in it."""
    core = ROOT.glob("mbrl_bilevel/*.py"), *(ROOT.glob(f"mbrl_bilevel/{f}/*.py") for f in CORE)
    top = (ROOT.glob(f"{folder}/*.py") for folder in TOP_FOLDERS)
    return sorted(chain(*core, *top))


def files_of_tests() -> list[Path]:
    return sorted(ROOT.glob("tests/**/*.py"))


CODE, TESTS = code_files(), files_of_tests()


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Public functions and methods, constructors among them, with the names of their classes."""
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and (
                    not method.name.startswith("_") or method.name in ("__init__", "__call__")
                ):
                    yield f"{node.name}.{method.name}", method


def test_every_test_has_the_path_of_the_code_that_it_tests() -> None:
    strays = []
    for path in TESTS:
        test = path.relative_to(ROOT / "tests")
        if not test.name.startswith("test_") or test.name.endswith("_properties.py"):
            continue  # support code, and property tests, which range over several files
        code = ROOT / "mbrl_bilevel" / test.parent / test.name.removeprefix("test_")
        if test.parts[0] not in KINDS and not code.is_file():
            strays.append(test.as_posix())
    assert set(strays) == set(WITHOUT_A_FILE)


def test_files_and_classes_are_short() -> None:
    lengths = {name(p): len(p.read_text().splitlines()) for p in [*CODE, *TESTS]}
    limits = {n: LONGEST_TEST if n.startswith("tests/") else LONGEST_FILE for n in lengths}
    assert {n for n in lengths if lengths[n] > limits[n]} == set()
    classes = [n for p in CODE for n in ast.walk(parsed(p)) if isinstance(n, ast.ClassDef)]
    long = {c.name for c in classes if (c.end_lineno or 0) - c.lineno + 1 > LONGEST_CLASS}
    assert long == set()


def test_public_functions_take_few_parameters() -> None:
    many = set()
    for where, function in chain.from_iterable(map(functions, CODE)):
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        if sum(argument.arg not in ("self", "cls") for argument in given) > MOST_PARAMETERS:
            many.add(where)
    assert many == set()


def test_a_file_is_named_for_its_idea_and_says_what_it_is() -> None:
    paths = [path.relative_to(ROOT).with_suffix("") for path in [*CODE, *TESTS]]
    assert not [str(path) for path in paths if FORBIDDEN_NAMES & set(path.parts)]
    assert not [name(path) for path in CODE if not ast.get_docstring(parsed(path))]


def imported(path: Path) -> Iterator[str]:
    """Modules of this package that a file imports, wherever in it."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("folder", BELOW)
def test_imports_point_down(folder: str) -> None:
    above = set(BELOW) - BELOW[folder] - {folder}
    wrong = [
        f"{name(path)} imports {module}"
        for path in CODE
        if path.parent.name == folder
        for module in imported(path)
        if any(f"{module}.".startswith(f"mbrl_bilevel.{other}.") for other in above)
    ]
    assert not wrong


def test_single_files_of_the_core_import_none_of_its_folders() -> None:
    wrong = [
        f"{name(path)} imports {module}"
        for path in CODE
        if path.parent.name == "mbrl_bilevel" and path.name != "__init__.py"
        for module in imported(path)
        if any(f"{module}.".startswith(f"mbrl_bilevel.{folder}.") for folder in BELOW)
    ]
    assert not wrong
