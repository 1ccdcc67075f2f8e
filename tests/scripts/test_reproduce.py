"""The pieces of `reproduce uci` and `reproduce published` that carry numbers."""

import json
import math

import numpy as np
import pytest
import torch
from tqdm import tqdm

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.evaluation.one_step import one_step
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.closed_form import ClosedFormPolicyGradient
from mbrl_bilevel.scripts import reproduce_published as published
from mbrl_bilevel.scripts import reproduce_uci as uci
from mbrl_bilevel.scripts.main import run

FEW = ("--objectives", "mse", "two_means")


def write_set(folder, rows, features=(0, 1), target=(2,), count="2"):
    folder.mkdir(parents=True)
    np.savetxt(folder / "data.txt", rows)
    np.savetxt(folder / "index_features.txt", features, fmt="%d")
    np.savetxt(folder / "index_target.txt", target, fmt="%d")
    (folder / "n_splits.txt").write_text(count)


def linear_rows(count=80, seed=0):
    """Columns x0, x1 and y = 300 + 20 x0 - 10 x1 + noise of deviation 1."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 2))
    y = 300 + 20 * x[:, 0] - 10 * x[:, 1] + generator.normal(size=count)
    return np.column_stack([x, y])


def test_splits_are_the_published_permutations_one_after_the_other():
    """NumPy keeps RandomState's stream fixed for good; these are its first two of 10 rows."""
    first, second = uci.splits(10, 2)
    assert first[0].tolist() == [2, 9, 6, 4, 0, 3, 1, 7, 8]
    assert first[1].tolist() == [5]
    assert second[0].tolist() == [9, 5, 3, 0, 8, 4, 2, 1, 6]
    assert second[1].tolist() == [7]


@pytest.mark.parametrize(("rows", "train"), [(308, 277), (506, 455), (9568, 8611)])
def test_nine_tenths_are_rounded_to_the_nearest_row(rows, train):
    for fitted, test in uci.splits(rows, 2):
        assert len(fitted) == train
        assert sorted(torch.cat([fitted, test]).tolist()) == list(range(rows))


def test_figures_in_target_units_are_those_of_the_mixture_of_raw_predictions():
    rows = torch.as_tensor(linear_rows(), dtype=torch.float32)
    x, y = rows[:, :2], rows[:, 2]
    data = uci.as_transitions(x, y)
    generator = torch.Generator().manual_seed(1)
    model = DynamicsModel(
        0, 2, ModelSettings(members=3, hidden=(8,)), learn_reward=True, generator=generator
    ).double()
    model.fit_standardizers(data)
    standardised = one_step(model.network, *(part.double() for part in model.encode(data)))
    std = float(model.target_standardizer.std)
    rmse, nll = uci.in_target_units(standardised.rmse, standardised.nll, std)

    raw = model.predict(data.observation.double(), x.double())
    members = torch.distributions.Normal(raw.mean.squeeze(-1).T, raw.std.squeeze(-1).T)
    weights = torch.distributions.Categorical(torch.ones(len(y), 3))
    mixture = torch.distributions.MixtureSameFamily(weights, members)
    assert nll == pytest.approx(-mixture.log_prob(y.double()).mean().item(), abs=1e-5)
    assert rmse == pytest.approx((mixture.mean - y).square().mean().sqrt().item(), rel=1e-5)


def test_a_suite_is_read_small_sets_first(tmp_path):
    write_set(tmp_path / "large", linear_rows(90), count="3")
    rows = linear_rows(60)
    write_set(tmp_path / "small", rows, features=(1,), target=(0,))
    small, large = uci.load_suite(tmp_path)
    assert (small.name, small.splits, large.name, large.splits) == ("small", 2, "large", 3)
    np.testing.assert_allclose(small.x.numpy(), rows[:, 1:2], rtol=1e-6)
    np.testing.assert_allclose(small.y.numpy(), rows[:, 0], rtol=1e-6)


def test_uci_learns_a_line_and_prints_its_table(tmp_path, capsys, monkeypatch):
    """Noise of deviation 1 in a target of deviation 22: R2 is above 0.7 below an RMSE of 12."""
    monkeypatch.setattr(uci, "EPOCHS", 25)
    write_set(tmp_path / "line", linear_rows(100), count="1")
    assert run(["reproduce", "uci", "--data", str(tmp_path), *FEW, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])["test"]["line"]
    assert list(found) == ["mse", "two_means"]
    for objective, figures in found.items():
        assert len(figures["rmse"]) == len(figures["nll"]) == 1, objective
        assert 0.3 < figures["rmse"][0] < 12, objective
        # no density has a lower NLL than that of the true noise, 1.42, but for 10 test rows' luck
        assert 0.5 < figures["nll"][0] < 4.5, objective
    assert "line" in captured.err


def test_the_uci_table_has_means_standard_errors_and_the_published_rows():
    text = uci.table("yacht", {"nll": {"rmse": [1.0, 3.0], "nll": [0.5, 0.5]}})
    head, ours, pbp, deep, note = text.splitlines()
    assert head.split() == ["yacht", "test", "RMSE", "test", "NLL"]
    assert ours.split() == ["nll", "2.000", "±", "1.000", "0.500", "±", "0.000"]
    assert pbp.split() == ["PBP", "*", "1.02", "1.63"]
    assert deep.split() == ["Deep", "Ensembles", "*", "1.58", "1.18"]
    assert "published" in note
    assert len(uci.table("own", {"nll": {"rmse": [1.0], "nll": [0.5]}}).splitlines()) == 2


BAD = {
    "no rows": ({"rows": np.zeros((0, 3))}, "50 rows"),
    "not finite": ({"rows": np.where(np.arange(3) == 2, np.nan, linear_rows())}, "finite"),
    "no such column": ({"rows": linear_rows(), "features": (0, 7)}, "columns"),
    "two targets": ({"rows": linear_rows(), "target": (1, 2)}, "one target"),
    "no splits": ({"rows": linear_rows(), "count": "0"}, "number of splits"),
    "words": ({"rows": linear_rows(), "count": "twenty"}, "no data set of the suite"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore:loadtxt. input contained no data")
def test_a_malformed_set_is_one_sentence_and_exit_code_2(name, tmp_path, capsys):
    arguments, words = BAD[name]
    write_set(tmp_path / "bad", **arguments)
    assert_refused(["uci", "--data", str(tmp_path)], words, capsys)


def test_missing_data_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    assert_refused(["uci"], "--data", capsys)
    assert_refused(["uci", "--data", str(tmp_path / "nowhere")], "holds no data set", capsys)
    assert_refused(["uci", "--data", str(tmp_path)], "holds no data set", capsys)
    (tmp_path / "empty").mkdir()
    assert_refused(["uci", "--data", str(tmp_path)], "no data set of the suite", capsys)
    assert_refused(["uci", "--objectives", "magic"], "magic", capsys)
    assert_refused(["published", "--seeds", "0"], "--seeds 0", capsys)


def assert_refused(arguments, words, capsys):
    assert run(["reproduce", *arguments]) == 2
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert captured.out == ""
    assert last.startswith("mbrl-bilevel reproduce: ")
    assert words in last


@pytest.fixture(scope="module")
def transitions():
    """20 episodes of 50 steps, next = 2 x + action + correlated noise, in units far from 1."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(shape, generator=generator)

    observation, action = 5 * noise(1000, 2) + 3, noise(1000, 1)
    mixed = noise(1000, 2) @ torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    following = 2 * observation + action + mixed
    never = torch.zeros(1000, dtype=torch.bool)
    episode = torch.arange(1000) // 50
    return Transitions(observation, action, noise(1000), following, never, never, episode)


def test_repetitions_have_own_splits_standardised_inputs_and_raw_targets(transitions):
    a, b = (published.repeat(transitions, seed, torch.device("cpu")) for seed in (0, 1))
    assert [len(part.x) for part in (a.train, a.held_out, a.test)] == [200, 100, 700]
    torch.testing.assert_close(a.train.x.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(a.train.x.std(0, correction=0), torch.ones(3))
    whole = torch.cat([a.train.y, a.held_out.y, a.test.y])
    raw = transitions.next_observation
    torch.testing.assert_close(whole.sort(0).values, raw.sort(0).values)
    assert not torch.equal(a.train.y, b.train.y)


def test_fixed_rewards_take_the_marginal_and_residual_ones_the_conditional_covariance(transitions):
    """U* = (1/2) Sigma^-1 at lambda 1, from NumPy's covariance and from held-out residuals."""
    repetition = published.repeat(transitions, 0, torch.device("cpu"))
    marginal = np.cov(repetition.train.y.double().numpy().T, bias=True)
    _, fixed = published.ROWS["PG, full U*, marginal"][0](repetition)
    precision = fixed.reward.precision().detach().numpy()
    np.testing.assert_allclose(precision, 0.5 * np.linalg.inv(marginal), rtol=1e-3)
    _, scalar = published.ROWS["PG, u* I, marginal"][0](repetition)
    precision = scalar.reward.precision().detach().numpy()
    np.testing.assert_allclose(precision, np.eye(2) / np.trace(marginal), rtol=1e-4)

    network, residual = published.ROWS["PG, full U*, residual"][0](repetition)
    assert isinstance(residual, ClosedFormPolicyGradient)
    residual.calibrate(network, *repetition.held_out)
    errors = (network(repetition.held_out.x).mean[0] - repetition.held_out.y).detach().numpy()
    expected = 0.5 * np.linalg.inv(errors.T @ errors / len(errors))
    np.testing.assert_allclose(residual.reward.precision().detach().numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("name", published.ROWS)
def test_every_row_trains_and_fits_better_than_no_model(name, transitions, monkeypatch):
    """80 larger steps explain at least half of the variance, whatever the objective."""
    monkeypatch.setattr(published, "STEPS", 80)
    monkeypatch.setattr(published, "LEARNING_RATE", 4e-2)
    repetition = published.repeat(transitions, 0, torch.device("cpu"))
    with tqdm(total=80, disable=True) as bar:
        network = published.train(repetition, published.ROWS[name][0], bar)
    judged = one_step(network, *repetition.test)
    assert judged.r2 > 0.5
    assert math.isfinite(judged.nll)


def test_the_published_table_stands_beside_ours():
    found = {name: [(1.0, 2.0), (2.0, 2.0)] for name in published.ROWS}
    lines = published.table(found).splitlines()
    assert len(lines) == 1 + len(published.ROWS)
    assert lines[2].split() == [
        "NLL",
        "1.500",
        "±",
        "0.500",
        "2.000",
        "±",
        "0.000",
        "4.594",
        "0.733",
    ]
    assert lines[-1].split()[-2:] == ["-", "-"]
