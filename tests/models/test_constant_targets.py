"""Targets that are constant in the training part: predicted as that constant, and nothing else."""

import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.constant_targets import sparse_targets
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.models.two_means import TwoMeanEnsemble
from mbrl_bilevel.objectives.likelihood import MSE, NLL
from mbrl_bilevel.objectives.outer_data import OuterBatches, OuterData
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.objectives.two_means import TwoMeanRegression
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings

MOVES = [1, 3]  # of five dimensions: the others stand still, but the last counts up by 0.25


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def transitions(constants=0, episodes=40, steps=50, seed=0):
    """x' = 0.95 x + 0.3 u + 0.01 noise in three dimensions, and columns that are always 1."""
    g = seeded(seed)
    x, rows = torch.randn(episodes, 3, generator=g), []
    for _ in range(steps):
        u = 2 * torch.rand(episodes, 3, generator=g) - 1
        after = 0.95 * x + 0.3 * u + 0.01 * torch.randn(episodes, 3, generator=g)
        rows.append((x, u, after))
        x = after
    x, u, after = (torch.stack(part, 1).flatten(0, 1) for part in zip(*rows, strict=True))
    count, ones = len(x), torch.ones(len(x), constants)
    nowhere = torch.zeros(count, dtype=torch.bool)
    return Transitions(
        observation=torch.cat([x, ones], 1),
        action=u,
        reward=torch.zeros(count),
        next_observation=torch.cat([after, ones], 1),
        terminated=nowhere,
        truncated=nowhere,
        episode=torch.arange(episodes).repeat_interleave(steps),
    )


def few_that_move(reward=0.5, count=60, seed=0):
    """Five dimensions of which two move at random, a constant reward, two actions."""
    g = seeded(seed)
    obs = torch.randn(count, 5, generator=g)
    obs[:, [0, 2]] = torch.tensor([3.0, -7.0])
    change = torch.zeros(count, 5)
    change[:, MOVES] = torch.randn(count, 2, generator=g)
    change[:, 4] = 0.25
    obs[:, 4] = 0.25 * torch.arange(count)
    nowhere = torch.zeros(count, dtype=torch.bool)
    return Transitions(
        obs,
        torch.randn(count, 2, generator=g),
        torch.full((count,), reward),
        obs + change,
        nowhere,
        nowhere,
        torch.arange(count) // 10,
    )


def dynamics(learn_reward=True, covariance="diagonal", **arguments):
    settings = ModelSettings(members=3, hidden=(16, 16), covariance=covariance)
    made = {"generator": seeded()} | arguments
    model = DynamicsModel(5, 2, settings, learn_reward=learn_reward, **made)
    with pytest.warns(UserWarning, match="of . targets are constant"):
        model.fit_standardizers(few_that_move())
    model.lowest.fill_(-1e9)
    model.highest.fill_(1e9)
    return model


KINDS = [{}, {"covariance": "full"}, {"kind": "two_means"}]


@pytest.mark.situation("right")
@pytest.mark.parametrize("objective", [NLL, MSE])
def test_constant_columns_leave_the_fit_of_the_others_as_good(objective):
    """A small network: by nll a hundred columns of ones took a third of R2 from the real three."""
    found = {}
    for constants in (0, 100):
        data = transitions(constants)
        test = data.episode >= 36
        model = DynamicsModel(
            3 + constants, 3, ModelSettings(members=2, hidden=(32, 32)), generator=seeded(1)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit_standardizers(data[~test])
        parts = [Samples(*model.encode(data[rows])) for rows in (~test, test)]
        fit_network(
            model.network,
            objective(),
            *parts,
            generator=seeded(2),
            progress=False,
            settings=FitSettings(steps=600),
        )
        after = model.predict(data[test].observation, data[test].action).mean.mean(0)
        change = (data[test].next_observation - data[test].observation)[:, :3]
        error = (after[:, :3] - change).square().sum() / (change - change.mean(0)).square().sum()
        found[constants] = 1 - error.item()
        assert torch.equal(after[:, 3:], torch.zeros(len(after), constants))
    assert found[0] > 0.99  # 0.01 of noise beside changes of 0.18
    assert found[100] > 0.99


@pytest.mark.situation("right")
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_constant_targets_are_predicted_as_that_constant(kind):
    model, data = dynamics(**kind), few_that_move()
    assert model.informative.tolist() == MOVES
    assert model.informative_names == ("observation 1", "observation 3")
    y = model.encode(data)[1]
    assert y.shape == (60, 2)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(2))
    gaussian = model.predict(data.observation, data.action)
    rest = [0, 2, 4, 5]
    constant = torch.tensor([0.0, 0.0, 0.25, 0.5])
    assert torch.equal(gaussian.mean[..., rest], constant.expand(3, 60, 4))
    assert torch.equal(gaussian.std[..., rest], torch.zeros(3, 60, 4))
    assert (gaussian.std[..., MOVES] > 0).all()
    for member in (None, torch.arange(60) % 3):
        step = model.sample(data.observation, data.action, seeded(), member)
        torch.testing.assert_close(
            step.observation[:, [0, 2, 4]], data.observation[:, [0, 2, 4]] + constant[:3]
        )
        assert torch.equal(step.reward, torch.full((60,), 0.5))
        assert (step.observation - data.observation)[:, MOVES].abs().min() > 0


@pytest.mark.parametrize("kind", ["ts1", "ts_inf", "mean", "mixture"])
def test_imagined_futures_keep_the_constants(kind):
    model = dynamics()
    start, actions = few_that_move().observation[:4], torch.randn(4, 2, 6, 2, generator=seeded())
    imagined = Propagation(model, kind).trajectories(start, actions, seeded())
    steps = torch.arange(7.0)
    p = len(imagined.observations)
    for dim, drift in ((0, 0.0), (2, 0.0), (4, 0.25)):
        expected = start[:, dim].view(1, 4, 1, 1) + drift * steps
        torch.testing.assert_close(
            imagined.observations[..., dim], expected.expand(p, 4, 2, 7), rtol=0, atol=1e-4
        )
    torch.testing.assert_close(imagined.rewards, torch.full((p, 4, 2, 6), 0.5))


@pytest.mark.parametrize("kind", ["ts_inf", "mixture"])
def test_disagreement_is_over_the_dimensions_that_members_predict(kind):
    """The same network without the constant targets: the same disagreement, not a diluted one."""
    model = dynamics()
    start, actions = few_that_move().observation[:4], torch.randn(4, 2, 3, 2, generator=seeded())
    found = Propagation(model, kind, disagreement=True).trajectories(start, actions, seeded())
    states = found.observations[..., 1:, :] / model.input_standardizer.std[:5]
    if kind == "ts_inf":
        expected = states.var(0, correction=0)[..., MOVES].mean(-1).sqrt()
    else:
        means = model.predict(start, actions[:, 0, 0]).mean[..., MOVES]
        spread = means.std(0, correction=0) / model.input_standardizer.std[MOVES]
        expected = spread.square().mean(-1).sqrt()
        assert found.disagreement is not None
        torch.testing.assert_close(found.disagreement[:, 0, 0], expected)
        return
    torch.testing.assert_close(found.disagreement, expected)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_restricted_network_predicts_the_same_targets_with_the_same_parameters(covariance):
    x = torch.randn(7, 4, generator=seeded(1))
    network = GaussianEnsemble(
        4, 5, members=2, hidden=(8,), covariance=covariance, generator=seeded()
    )
    whole = network(x)
    network.restrict(torch.tensor(MOVES))
    part = network(x)
    assert network.outputs == 2
    torch.testing.assert_close(part.mean, whole.mean[..., MOVES])
    if covariance == "full":
        torch.testing.assert_close(part.scale_tril, whole.scale_tril[..., MOVES, :][..., MOVES])
    else:
        torch.testing.assert_close(part.std, whole.std[..., MOVES])
    torch.testing.assert_close(network.select(torch.tensor([1]))(x).mean[0], part.mean[1])
    std = torch.tensor([[0.5, 2.0], [0.1, 1.0]])
    network.set_std(std)
    diagonal = network(x).scale_tril.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(diagonal[:, 3], std, rtol=1e-4, atol=0)


def test_a_gate_does_not_read_the_heads_that_rest():
    network = TwoMeanEnsemble(4, 5, members=2, hidden=(8, 8), generator=seeded())
    network.restrict(torch.tensor(MOVES))
    network.side.gate.weight.normal_(generator=seeded(2))
    x = torch.randn(7, 4, generator=seeded(1))
    before = network.side.noise_and_gate(x)
    with torch.no_grad():
        network.side.layers[-1].bias[..., [0, 2, 4]] += 5.0
    after = network.side.noise_and_gate(x)
    assert before[0].shape == before[1].shape == (2, 7, 2)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    side = network.side_network(1, seeded())
    assert side.log_std(x).shape == (1, 7, 2)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_loaded_model_has_the_same_informative_targets(tmp_path, kind):
    model, data = dynamics(**kind), few_that_move()
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    assert loaded.informative.tolist() == MOVES
    ours, theirs = (m.predict(data.observation, data.action) for m in (model, loaded))
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.scale_tril, theirs.scale_tril)


def test_a_model_of_version_0_1_predicts_every_target(tmp_path):
    """It says nothing of informative targets, and was trained on all of them."""
    model = DynamicsModel(5, 2, ModelSettings(members=2, hidden=(8,)), generator=seeded())
    model.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert weights.pop("informative").tolist() == [0, 1, 2, 3, 4]
    save_file(weights, tmp_path / "model.safetensors")
    loaded, data = DynamicsModel.load(tmp_path), few_that_move()
    assert loaded.informative.tolist() == [0, 1, 2, 3, 4]
    ours, theirs = (m.predict(data.observation, data.action) for m in (model, loaded))
    assert torch.equal(ours.mean, theirs.mean)


@pytest.mark.parametrize("informative", [[1, 6], [-1, 1], [3, 1], [1, 1], []])
def test_a_model_of_targets_that_there_are_not_is_refused(tmp_path, informative):
    dynamics().save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["informative"] = torch.tensor(informative, dtype=torch.long)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="informative targets"):
        DynamicsModel.load(tmp_path)


@pytest.mark.situation("refused")
@pytest.mark.parametrize("learn_reward", [False, True])
def test_data_in_which_nothing_changes_are_refused(learn_reward):
    data = few_that_move()
    still = replace(data, next_observation=data.observation)
    model = DynamicsModel(5, 2, ModelSettings(members=1, hidden=(4,)), learn_reward=learn_reward)
    with pytest.raises(InputError, match=r"all . targets .* constant over 60 training transitions"):
        model.fit_standardizers(still)


@pytest.mark.situation("warned")
def test_constant_targets_are_named_once():
    data = transitions(constants=9)
    model = DynamicsModel(12, 3, ModelSettings(members=1, hidden=(4,)), learn_reward=True)
    with pytest.warns(UserWarning, match="10 of 13 targets are constant") as caught:
        model.fit_standardizers(data)
    text = str(caught[0].message)
    assert "observation 3, observation 4" in text
    assert text.endswith("observation 7 and 5 more")
    model.fit_standardizers(data)  # a warning here would be an error


@pytest.mark.situation("warned")
def test_constant_actions_are_warned_of():
    """Whatever a planner chose there, the model would predict the same or nonsense."""
    data = transitions()
    data.action[:, 1] = 0.5
    model = DynamicsModel(3, 3, ModelSettings(members=1, hidden=(4,)))
    with pytest.warns(UserWarning, match=r"1 of 3 action dimensions .* \(action 1\): the model"):
        model.fit_standardizers(data)


def test_a_target_that_begins_to_move_is_learned_from_then_on():
    """Online data grow: what stood still at the first fit may move at the next."""
    model = dynamics()
    moving = few_that_move()
    moving.next_observation[:, 0] += torch.randn(60, generator=seeded(5))
    model.fit_standardizers(moving)
    assert model.informative.tolist() == [0, 1, 3]
    assert model.network(model.encode(moving)[0]).mean.shape == (3, 60, 3)


@pytest.mark.parametrize("kept", [0.4, 0.6])
def test_targets_of_one_value_in_most_rows_are_sparse(kept):
    y = torch.randn(100, 3, generator=seeded())
    y[: int(100 * kept), 1] = -0.3
    assert sparse_targets(y).tolist() == [False, kept > 0.5, False]


def with_contacts(rows=600):
    """Three dimensions that move, and two that are 0 but for one row of ten."""
    data, g = transitions(2, episodes=12, steps=rows // 12), seeded(3)
    touched = (torch.rand(rows, 2, generator=g) < 0.1) * torch.randn(rows, 2, generator=g)
    data.next_observation[:, 3:] = data.observation[:, 3:] + touched
    return data


@pytest.mark.situation("warned")
def test_sparse_targets_are_named_once():
    model = DynamicsModel(5, 3, ModelSettings(members=1, hidden=(4,)))
    with pytest.warns(UserWarning, match="2 of 5 targets that vary are sparse.*observation 3, obs"):
        model.fit_standardizers(with_contacts())
    model.fit_standardizers(with_contacts())  # a warning here would be an error


@pytest.mark.situation("right")
@pytest.mark.parametrize("objective", ["nll", "two means"])
def test_a_sparse_target_has_the_deviation_of_its_residuals_at_every_input(tmp_path, objective):
    """Of the training part, where it moves: in the held-out one it does not, as may happen."""
    data = with_contacts()
    model = DynamicsModel(
        5,
        3,
        ModelSettings(members=2, hidden=(8, 8)),
        kind="two_means" if objective == "two means" else "gaussian",
        generator=seeded(),
    )
    with pytest.warns(UserWarning, match="sparse"):
        model.fit_standardizers(data)
    x, y = model.encode(data)
    still = (y[:, 3:] == y[:, 3:].median(0).values).all(1)
    held_out = Samples(x[still][:50], y[still][:50])
    loss = NLL()
    if objective == "two means":
        inner = TwoMeanRegression(model.network, generator=seeded())
        rows = torch.arange(600).expand(2, -1)
        loss = TwoLevel(inner, OuterData(OuterBatches(x, y, rows, 64, seeded(1))), steps=40)
    fit_network(
        model.network,
        loss,
        Samples(x, y),
        held_out,
        generator=seeded(),
        progress=False,
        settings=FitSettings(steps=40),
    )
    model.save(tmp_path)
    for network in (model.network, DynamicsModel.load(tmp_path).network):
        gaussian = network(x)
        residual = (gaussian.mean - y).square().mean(1).sqrt()[:, 3:]
        expected = residual.unsqueeze(1).expand(2, 600, 2)
        torch.testing.assert_close(gaussian.std[..., 3:], expected, rtol=1e-3, atol=0)
        assert (gaussian.std[..., :3].std(1) > 0).all()


@pytest.mark.situation("right")
def test_an_input_far_beyond_the_training_data_is_clipped_for_the_network():
    """A contact force, nearly constant in training, may come hundreds of deviations away."""
    model = DynamicsModel(5, 3, ModelSettings(members=2, hidden=(8, 8)), generator=seeded())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit_standardizers(with_contacts())
    inputs = model.input_standardizer
    obs = inputs.mean[:5] + inputs.std[:5] * torch.tensor([0.0, 0.0, 0.0, 300.0, 0.0])
    edge = inputs.mean[:5] + inputs.std[:5] * torch.tensor([0.0, 0.0, 0.0, 10.0, 0.0])
    act = torch.zeros(1, 3)
    far, near = (model.predict(start.view(1, 5), act) for start in (obs, edge))
    torch.testing.assert_close(far.mean, near.mean)
    torch.testing.assert_close(far.std, near.std)
    model.lowest.fill_(-1e9)
    model.highest.fill_(1e9)
    imagined = Propagation(model, "mean").trajectories(
        obs.view(1, 5), torch.zeros(1, 1, 1, 3), seeded()
    )
    moved = imagined.observations[:, 0, 0, 1] - obs
    torch.testing.assert_close(moved, far.mean[:, 0], rtol=1e-3, atol=1e-3)
