"""The tally of faults: tried, survived, lost; printed at the end of the tests."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mbrl_bilevel.scripts.main import run
from tests.faults.cases import CASES, DATASET, State
from tests.faults.processes import Command


class Tally:
    """Counts the faults of one test where its report carries them, from other processes too."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self.properties = properties

    @contextmanager
    def fault(self, kind: str, count: int = 1) -> Iterator[None]:
        """What is inside must end well: nothing finished is lost, and no traceback."""
        self.properties.append(("fault tried", [kind, count]))
        yield
        self.properties.append(("fault survived", [kind, count]))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    return Tally(request.node.user_properties)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of data sets, with one to learn from: 20 short episodes."""
    folder = tmp_path_factory.mktemp("minari")
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        made = ("collect", "--env", "Pendulum-v1", "--policy", "random", "--steps", "2400")
        assert run([*made, "--dataset", DATASET]) == 0
        yield folder


class Whole:
    """Uninterrupted runs, made when they are first asked for: their end and how long they took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, tuple[State, float]] = {}

    def __call__(self, name: str) -> tuple[State, float]:
        if name not in self.found:
            start(["--version"]).end()  # the first process waits for the imports of all
            place = self.folder / f"whole-{name.replace(' ', '-')}"
            command = start(CASES[name].at(place))
            code, said = command.end()
            assert code == 0, said
            state = CASES[name].state(place)
            assert state is not None
            self.found[name] = state, command.seconds
        return self.found[name]


@pytest.fixture(scope="session")
def whole(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


def start(argv: list[str], **how: object) -> Command:
    """The command in a process, on the data sets of these tests."""
    environment = {"MINARI_DATASETS_PATH": os.environ["MINARI_DATASETS_PATH"]}
    return Command(argv, environment, **how)  # type: ignore[arg-type]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    tried = count(reports, "fault tried")
    if not tried:
        return
    survived = count(reports, "fault survived")
    terminalreporter.section("faults")
    rows = [(kind, tried[kind], survived[kind]) for kind in sorted(tried)]
    rows.append(("all", tried.total(), survived.total()))
    terminalreporter.write_line(f"{'fault':<52} {'tried':>6} {'survived':>9} {'lost':>5}")
    for kind, of, well in rows:
        terminalreporter.write_line(f"{kind:<52} {of:>6} {well:>9} {of - well:>5}")


def count(reports: list[pytest.TestReport], name: str) -> Counter[str]:
    """Faults by kind that tests noted under `name` while they ran."""
    found: Counter[str] = Counter()
    for report in reports:
        if report.when == "call":
            for key, value in report.user_properties:
                if key == name:
                    kind, number = value  # type: ignore[misc]
                    found[kind] += number
    return found
