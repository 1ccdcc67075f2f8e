"""The programs of docs/getting-started.md run as they stand, and print what they should."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.programs import length, programs

PROGRAMS = programs("getting-started.md")
LONGEST = 15
# What each prints, and what its number must be. A model that predicts no change has an RMSE of 1
# and an NLL of 1.4 nats; returns of Pendulum-v1 are below 0, those of random actions below -900.
EXPECTED = [
    ("A dynamics model by likelihood", r"test RMSE (.*)", lambda rmse: 0 < rmse < 0.1),
    ("The same with an outer level", r"test NLL (.*)", lambda nll: nll < -1),
    ("Model-predictive control with the model", r"return (.*)", lambda value: -900 < value < 0),
    ("An agent that learns, and its policy", r"returns \[(.*), .*\]", lambda value: value < 0),
    ("Stable-Baselines3 in the learned environment", r"for (\d+) steps", lambda n: n == 300),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs leave their data set and their model for the next."""
    return tmp_path_factory.mktemp("getting-started")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("heading", "line", "holds"), EXPECTED, ids=[e[0] for e in EXPECTED])
def test_it_runs(heading, line, holds, folder, monkeypatch, capsys):
    if "stable_baselines3" in PROGRAMS[heading] and find_spec("stable_baselines3") is None:
        pytest.skip("stable-baselines3 is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "datasets"))
    monkeypatch.chdir(folder)
    exec(compile(PROGRAMS[heading], heading, "exec"), {"__name__": "program"})
    (found,) = re.findall(line, capsys.readouterr().out)
    assert holds(float(found))


def test_they_are_all_and_they_are_short():
    assert list(PROGRAMS) == [heading for heading, *_ in EXPECTED]
    assert max(map(length, PROGRAMS.values())) <= LONGEST
