"""What a run writes down of the reward that it has learned."""

import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.scripts.reward_figures import RewardFigures
from mbrl_bilevel.training.run_folder import RunFolder

ROWS = 5


class Known(TwoLevel):
    """An objective whose U is a product of the row's number and the dimension's."""

    name, selects_by, rows = "known", "nll", None

    def __init__(self, learns=True):
        self.learns = learns

    def precision_diagonal(self, network, x):
        rows = torch.tensor([9.0, 1.0, 3.0, 100.0, 2.0])
        return rows[:, None] * torch.tensor([1.0, 10.0]) if self.learns else None


def figures(objective, tmp_path):
    model = DynamicsModel(
        2,
        1,
        ModelSettings(members=2, hidden=(4,)),
        learn_reward=False,
        observation_names=["x", "v"],
    )
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(ROWS + 1, 2, generator=generator)
    held = Transitions(
        observation=observations[:-1],
        action=torch.randn(ROWS, 1, generator=generator),
        reward=torch.zeros(ROWS),
        next_observation=observations[1:],
        terminated=torch.zeros(ROWS, dtype=torch.bool),
        truncated=torch.zeros(ROWS, dtype=torch.bool),
        episode=torch.zeros(ROWS, dtype=torch.long),
    )
    model.fit_standardizers(held)
    with RunFolder(tmp_path / "run", {"seed": 0}) as folder:
        return RewardFigures(objective, model, held, folder)


def test_medians_go_by_the_names_of_the_targets(tmp_path):
    assert figures(Known(), tmp_path).median_precision() == {"x": 3.0, "v": 30.0}


def test_a_U_that_is_the_same_for_all_rows_is_its_own_median(tmp_path, monkeypatch):
    """As rewards without _x give it: one row in memory, of which torch 2.15 has no right median."""
    row = torch.tensor([3.0, 30.0])
    monkeypatch.setattr(Known, "precision_diagonal", lambda self, network, x: row.expand(ROWS, -1))
    assert figures(Known(), tmp_path).median_precision() == {"x": 3.0, "v": 30.0}


def test_without_a_learned_U_there_are_none(tmp_path):
    assert figures(Known(learns=False), tmp_path / "a").median_precision() is None
    assert figures(NLL(), tmp_path / "b").median_precision() is None
