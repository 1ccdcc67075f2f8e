"""The modules of docs/extending.md, used by the commands that stand below them."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

from mbrl_bilevel import OBJECTIVES, PLANNERS
from mbrl_bilevel.agents import AGENTS
from mbrl_bilevel.envs.tasks import TASKS
from mbrl_bilevel.plugins import VARIABLE
from mbrl_bilevel.scripts.main import run
from tests.docs.programs import DOCS, programs

PROGRAMS = programs("extending.md")
MODULES = {
    "A task": "my_task",
    "An objective": "my_objective",
    "A planner": "my_planner",
    "An agent": "my_agent",
}
TINY = ("--members", "2", "--hidden", "8", "--steps", "40")
SHORT = ("--episodes", "1", "--max-steps", "3", "--horizon", "3", "--samples", "12")
# What makes each command one of seconds.
FASTER = {
    "collect": ("--json",),
    "train-model": (*TINY, "--json"),
    "eval-agent": (*SHORT, "--workers", "1", "--json"),
    "train-agent": ("--steps", "3", "--episodes", "1", "--json"),
}


def commands(heading: str) -> list[list[str]]:
    """Those below a program, without the name of the program that runs them."""
    section = re.split(rf"^## {heading}$", (DOCS / "extending.md").read_text(), flags=re.M)[1]
    block = re.findall(r"```sh\n(.*?)```", section, flags=re.S)[0]
    return [shlex.split(line)[1:] for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The modules, a data set of Pendulum-v1 and a model of it; all is forgotten afterwards."""
    here = tmp_path_factory.mktemp("extending")
    for heading, module in MODULES.items():
        (here / f"{module}.py").write_text(PROGRAMS[heading])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(here / "datasets"))
        patch.setenv(VARIABLE, "")
        patch.setattr(sys, "path", [*sys.path])
        patch.chdir(here)
        made = "collect --env Pendulum-v1 --policy random --steps 1000 --dataset pendulum/random-v0"
        assert run(made.split()) == 0
        model = "train-model --dataset pendulum/random-v0 --out runs/pendulum"
        assert run([*model.split(), *TINY]) == 0
        yield here
    TASKS.pop("Puck-v0", None)
    gymnasium.registry.pop("Puck-v0", None)
    for registry, name in ((OBJECTIVES, "huber"), (PLANNERS, "corners"), (AGENTS, "search")):
        if name in registry:
            registry.unregister(name)
    for module in MODULES.values():
        sys.modules.pop(module, None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("heading", MODULES)
def test_the_command_line_knows_it(heading, folder, capsys):
    for command in commands(heading):
        capsys.readouterr()
        assert run([*command, *FASTER[command[0]]]) == 0, capsys.readouterr().err
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
    if heading == "An objective":
        assert (found["objective"], found["steps"]) == ("huber", 40)
    elif heading == "An agent":
        assert (found["agent"], found["steps"]) == ("search", 3)
        assert found["mean_return"] > 0
    else:
        assert len(found["returns"]) == 1
        assert found["mean_return"] < 0


def test_its_flags_are_shown_and_checked(folder, capsys):
    plugin = ("--plugin", "my_objective", "--objective", "huber")
    with pytest.raises(SystemExit):
        run(["train-model", *plugin, "--help"])
    assert "--delta FLOAT" in capsys.readouterr().out
    out = ("--dataset", "pendulum/random-v0", "--out", "runs/refused")
    assert run(["train-model", *plugin, *out, "--delta", "0"]) == 2
    assert "--delta 0.0: choose a number above 0" in capsys.readouterr().err


def test_every_program_is_used():
    assert list(PROGRAMS) == list(MODULES)
