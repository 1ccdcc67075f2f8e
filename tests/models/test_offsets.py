"""One-step figures of data with an offset are those of the same data without."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.data.transitions import Transitions, split_by_episode
from mbrl_bilevel.evaluation.one_step import one_step
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.likelihood import MSE
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from tests.data.minari_files import episode, write

SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float64)
ACTIONS = spaces.Box(-1, 1, (3,), np.float64)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def loaded(offset: float) -> Transitions:
    """x' = 0.95 x + 0.3 u + 0.01 noise, recorded in float64 with an offset."""
    rng, data = np.random.default_rng(0), []
    for _ in range(40):
        one, x = episode(50, rng, SPACE, ACTIONS), rng.standard_normal(3)
        for t in range(50):
            one.observations[t] = x + offset
            x = 0.95 * x + 0.3 * one.actions[t] + 0.01 * rng.standard_normal(3)
        one.observations[50] = x + offset
        data.append(one)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*float32 rounds")
        return load_dataset(write(f"my/a-v{abs(int(offset))}", data, SPACE, ACTIONS)).transitions


def prepared(offset: float) -> tuple[DynamicsModel, list[Samples]]:
    generator = torch.Generator().manual_seed(0)
    parts = split_by_episode(loaded(offset), (0.8, 0.1, 0.1), generator)
    model = DynamicsModel(3, 3, ModelSettings(members=2, hidden=(32, 32)), generator=generator)
    model.fit_standardizers(parts[0])
    return model, [Samples(*model.encode(part)) for part in parts]


def r2_of_least_squares(offset: float) -> float:
    train, _, test = prepared(offset)[1]
    x, y = test.x.double(), test.y.double()
    weight = torch.linalg.lstsq(train.x.double(), train.y.double()).solution
    error = (x @ weight - y).square().sum()
    return 1 - float(error / (y - y.mean(0)).square().sum())


# Twice as far the rounding of inputs passes 1 % of their variance, and the data are refused.
@pytest.mark.situation("right")
@pytest.mark.parametrize("offset", [1e4, 3e5, 1e6, 2e6])
def test_an_offset_costs_no_accuracy_where_it_is_not_refused(offset: float) -> None:
    """What is left of the loss is the rounding of inputs, of which the change depends little.

    With changes of rounded observations R2 is .996, .990, .976 and .920.
    """
    plain = r2_of_least_squares(0.0)
    assert plain > 0.99
    assert abs(r2_of_least_squares(offset) - plain) < 0.002


@pytest.mark.situation("right")
def test_a_network_learns_as_well_far_from_zero() -> None:
    found = {}
    for offset in (0.0, 1e6):
        model, (train, held, test) = prepared(offset)
        generator = torch.Generator().manual_seed(0)
        fit_network(
            model.network,
            MSE(),
            train,
            held,
            generator=generator,
            progress=False,
            settings=FitSettings(steps=600),
        )
        found[offset] = one_step(model.network, *test).r2
    assert found[0.0] > 0.99
    assert abs(found[1e6] - found[0.0]) < 0.005
