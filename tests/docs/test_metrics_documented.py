"""Every metric that a training logs has its line, with a formula, on a page of docs/algorithms."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
import torch

from mbrl_bilevel.agents import settings
from mbrl_bilevel.envs.tasks import TASKS
from mbrl_bilevel.objectives import settings as objective_settings
from mbrl_bilevel.products import plain_products
from mbrl_bilevel.scripts import main, train_agent
from tests.agents.test_trained_policy import saved
from tests.scripts.test_train_agent import InThisProcess

PAGES = sorted((Path(__file__).parents[2] / "docs/algorithms").glob("*.md"))
ENV, DATA = "tests.scripts.point_environment:Point-v0", "point/documented-v0"
ENSEMBLE = ("--members", "2", "--hidden", "8")
ONLINE = ("--env", ENV, "--start-steps", "110", "--steps", "130")
REFITS = ("--refit-every", "10", "--model-steps", "6")
ROLLOUTS = ("--imagine-every", "5", "--rollouts", "10", "--updates-per-step", "1")
OFTEN = ("--log-every", "10", "--evaluate-every", "10", "--episodes", "1")
OUTER = ("--outer-every", "10", "--objective")
SHORT = ("--outer-horizon", "2")  # episodes end after a few steps
MODEL = ("--dataset", DATA, *ENSEMBLE, "--steps", "30", "--batch-size", "8")
OBJECTIVES = {
    "nll": (*MODEL, "--objective", "nll"),
    "beta_nll": (*MODEL, "--objective", "beta_nll"),
    "mse": (*MODEL, "--objective", "mse"),
    "faithful": (*MODEL, "--objective", "faithful"),
    "natural": (*MODEL, "--objective", "natural"),
    "student_t": (*MODEL, "--objective", "student_t"),
    "pg": (*MODEL, "--objective", "pg"),
    **{name: (*MODEL, *OUTER, name) for name in ("separate", "two_means")},
    "residual_reward": (*MODEL, *OUTER, "residual_reward"),
    "bilevel": (*MODEL, *OUTER, "bilevel", *SHORT),
    "visited": (*MODEL, *OUTER, "bilevel", *SHORT, "--outer-objective", "visited"),
    **{
        name: (*MODEL, *OUTER, "bilevel", *SHORT, "--hypergradient", name)
        for name in ("implicit", "fisher", "unrolled", "value_gap", "soba")
    },
}
OFFLINE = (
    *("--dataset", DATA, "--env", ENV, "--steps", "20", "--imitate-steps", "5"),
    *(*OFTEN, *ENSEMBLE, *ROLLOUTS, "--model-steps", "6", "--policy-hidden", "8"),
)
AGENTS = {
    "sac": (*ONLINE, *OFTEN, "--policy-hidden", "8"),
    "mbpo": (*ONLINE, *OFTEN, *ENSEMBLE, *REFITS, *ROLLOUTS, "--policy-hidden", "8"),
    "dhmbpo": (
        *(*ONLINE, *OFTEN, *ENSEMBLE, *REFITS, "--first-model-steps", "6"),
        *("--updates-per-step", "1", "--first-updates-per-step", "1", "--policy-hidden", "8"),
        *("--critic-updates", "2", "--horizon", "2"),
    ),
    "pets": (*ONLINE, "--log-every", "10", *ENSEMBLE, *REFITS, "--planner", "random_shooting"),
    "mopo": (*OFFLINE, "--rollout-cut", "disagreement"),
    "mobile": OFFLINE,
    "bc": ("--dataset", DATA, "--env", ENV, "--steps", "20", "--policy-hidden", "8", *OFTEN),
}


def documented() -> list[re.Pattern[str]]:
    """Names in the first column of a table; words in capitals stand for any name.

    Metrics that are not in metrics.jsonl are said to be in TensorBoard only.
    """
    rows = [line for page in PAGES for line in page.read_text().splitlines() if line[:3] == "| `"]
    rows = [row for row in rows if "TensorBoard only" not in row]
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    metrics = [name for name in names if "/" in name]
    assert metrics
    return [re.compile(re.sub(r"(?<![a-zA-Z])[A-Z]+\b", ".+", name)) for name in metrics]


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A data set of the point, in an environment that is forgotten in the end."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        patch.setattr(train_agent, "PolicyEvaluation", InThisProcess)
        collect = ("collect", "--env", ENV, "--policy", "random", "--steps", "400")
        assert main.run([*collect, "--dataset", DATA]) == 0
        yield
    TASKS.pop("Point-v0", None)
    gymnasium.registry.pop("Point-v0", None)
    sys.modules.pop("tests.scripts.point_environment", None)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    plain_products()


TRAININGS = {name: ("train-model", *flags) for name, flags in OBJECTIVES.items()}
TRAININGS |= {name: ("train-agent", "--agent", name, *flags) for name, flags in AGENTS.items()}
_logged: dict[str, set[str]] = {}  # the names of the metrics of each training, which runs once


def logged(name: str, folder: Path) -> set[str]:
    if name not in _logged:
        flags = TRAININGS[name]
        if name == "visited":
            flags = (*flags, "--visited-by", str(saved(folder / "policy", ENV)))
        assert main.run([*flags, "--out", str(folder / "run")]) == 0
        _logged[name] = names_in(folder / "run/metrics.jsonl")
    return _logged[name]


def names_in(log: Path) -> set[str]:
    names = {name for line in log.read_text().splitlines() for name in json.loads(line)}
    return names - {"step"}


def undocumented(names: set[str]) -> set[str]:
    patterns = documented()
    return {name for name in names if not any(p.fullmatch(name) for p in patterns)}


@pytest.mark.parametrize("training", TRAININGS)
def test_every_metric_that_is_logged_is_documented(training: str, tmp_path: Path) -> None:
    names = logged(training, tmp_path)
    assert names
    assert undocumented(names) == set()


def test_every_metric_that_is_documented_is_logged(tmp_path: Path) -> None:
    names = {name for training in TRAININGS for name in logged(training, tmp_path / training)}
    assert [p.pattern for p in documented() if not any(map(p.fullmatch, names))] == []


def test_every_agent_and_objective_is_tried() -> None:
    assert set(AGENTS) == set(settings.AGENTS.names)
    assert set(OBJECTIVES) >= set(objective_settings.OBJECTIVES.names)


def test_a_metric_that_no_page_lists_is_found() -> None:
    assert undocumented({"train/loss", "train/lost", "held_out_rmse/x"}) == {"train/lost"}
