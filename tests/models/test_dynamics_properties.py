"""Models of whatever data: own units, constants kept, files and types without effect."""

import warnings
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.distributions import DiagonalGaussian
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import KINDS, Propagation
from mbrl_bilevel.models.saved_model import describe
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.likelihood import MSE, NLL
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from tests.hypothesis_settings import examples

pytestmark = pytest.mark.situation("right")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Case:
    """A trained model, the data that it was trained on, and which columns never change there."""

    model: DynamicsModel
    data: Transitions
    constant: list[int]  # whose change is always the same
    step: Tensor  # what it is, [o]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """x' = 0.9 x + u in units of any size around any offset, with columns that stand still."""
    dims, actions = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    seed, rows = draw(st.integers(0, 2**31)), draw(st.sampled_from([5, 64]))
    constant = sorted(draw(st.sets(st.integers(0, dims - 1), max_size=dims - 1)))
    scale = torch.tensor([10.0 ** draw(st.integers(-5, 5)) for _ in range(dims)])
    offset = torch.tensor([draw(st.sampled_from([0.0, 1.0, -30.0, 0.1])) for _ in range(dims)])
    step = torch.tensor([draw(st.sampled_from([0.0, 0.0, 0.25, -1.0])) for _ in range(dims)])
    g = seeded(seed)
    x, u = torch.randn(rows, dims, generator=g), torch.randn(rows, actions, generator=g)
    after = 0.9 * x + u.sum(-1, keepdim=True) + 0.1 * torch.randn(rows, dims, generator=g)
    for d in constant:
        # counters and constants, in values that float32 holds exactly
        scale[d], offset[d] = 1.0, draw(st.sampled_from([0.0, 0.1, -2.5, 1e4]))
        x[:, d] = step[d] * torch.arange(rows)
        offset[d] = offset[d] if step[d] == 0 else offset[d].round()
        after[:, d] = x[:, d] + step[d]
    shift = offset * scale
    reward = x[:, 0] if draw(st.booleans()) else torch.full((rows,), 0.7)
    never = torch.zeros(rows, dtype=torch.bool)
    cast = draw(st.sampled_from([Tensor.double, Tensor.float]))
    before, u, reward, following = map(cast, (x * scale + shift, u, reward, after * scale + shift))
    data = Transitions(before, u, reward, following, never, never, never.long())
    model = DynamicsModel(
        dims,
        actions,
        ModelSettings(
            members=draw(st.integers(1, 3)),
            hidden=draw(st.sampled_from([(4,), (4, 4)])),
            covariance=draw(st.sampled_from(["diagonal", "full"])),
        ),
        learn_reward=draw(st.booleans()),
        generator=g,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names constant targets
        model.fit_standardizers(data)
    samples, objective = Samples(*model.encode(data)), draw(st.sampled_from([NLL, MSE]))()
    fit_network(
        model.network,
        objective,
        samples,
        samples,
        generator=g,
        progress=False,
        settings=FitSettings(steps=4),
    )
    order = torch.randperm(model.members, generator=g)
    model.elites = order[: draw(st.integers(1, model.members))]
    return Case(model, data, constant, step)


def close(found: Tensor, true: Tensor, scale: Tensor) -> bool:
    return bool(((found - true).abs() <= 1e-5 * scale + 1e-5 * true.abs()).all())


@examples(12)
@given(case=cases(), seed=st.integers(0, 2**31))
def test_a_model_out_of_its_files_predicts_the_same(case: Case, seed: int) -> None:
    with TemporaryDirectory() as folder:
        case.model.save(folder)
        again = DynamicsModel.load(folder)
    obs, act = case.data.observation.float(), case.data.action.float()
    for one, two in zip(
        vars(case.model.predict(obs, act)).values(),
        vars(again.predict(obs, act)).values(),
        strict=True,
    ):
        assert torch.equal(one, two)
    for kind in KINDS:
        futures = [
            Propagation(m, kind).trajectories(obs, act[:, None, None], seeded(seed))
            for m in (case.model, again)
        ]
        assert torch.equal(futures[0].observations, futures[1].observations)
        if case.model.learn_reward:
            assert torch.equal(futures[0].rewards, futures[1].rewards)
    assert describe(again) == describe(case.model)


@examples(15)
@given(case=cases(), seed=st.integers(0, 2**31))
def test_what_is_constant_stays_exactly_so(case: Case, seed: int) -> None:
    model, data, still = case.model, case.data, case.constant
    obs, act = data.observation.float(), data.action.float()
    predicted = model.predict(obs, act)
    for d in still:
        assert bool((predicted.mean[..., d] == case.step[d]).all())
        assert bool((predicted.std[..., d] == 0).all())
    rewards = data.reward.float()
    if model.learn_reward and bool((rewards == rewards[0]).all()):
        assert bool((predicted.mean[..., -1] == rewards[0]).all())
        assert bool((predicted.std[..., -1] == 0).all())
    rest = [d for d in still if case.step[d] == 0]
    sampled = model.sample(obs, act, seeded(seed)).observation
    assert torch.equal(sampled[:, rest], obs[:, rest])
    actions = act[:, None, None].expand(-1, 2, 6, -1)
    for kind in KINDS:
        futures = Propagation(model, kind).trajectories(obs, actions, seeded(seed)).observations
        assert bool((futures[..., rest] == obs[:, None, None, rest]).all())


@examples(15)
@given(case=cases())
def test_the_mean_over_one_step_is_what_is_predicted(case: Case) -> None:
    """Of each elite, in own units, within the range that imagined observations keep to."""
    model, obs, act = case.model, case.data.observation.float(), case.data.action.float()
    found = Propagation(model, "mean").trajectories(obs, act[:, None, None], seeded(0))
    mean = model.predict(obs, act).mean[model.elites]
    after = (obs + mean[..., : model.obs_dim]).clamp(*model.reachable(obs))
    scale = model.input_standardizer.std[: model.obs_dim] + obs.abs()
    assert close(found.observations[:, :, 0, 1], after, scale)
    assert torch.equal(found.observations[:, :, 0, 0], obs.expand(len(mean), *obs.shape))
    if model.learn_reward:
        assert found.rewards is not None
        assert close(found.rewards[:, :, 0, 0], mean[..., -1], model.target_standardizer.std[-1])
    else:
        assert found.rewards is None


@examples(12)
@given(case=cases(), far=st.sampled_from([-1e3, -3.0, 2.0, 50.0]), seed=st.integers(0, 2**31))
@pytest.mark.filterwarnings("ignore:.*starts lie outside the range")
def test_starts_outside_the_range_are_not_thrown_back(case: Case, far: float, seed: int) -> None:
    """They move by changes like those of the data, in every dimension that is outside."""
    model, obs, act = case.model, case.data.observation.float(), case.data.action.float()
    size = model.obs_dim
    width = (model.highest - model.lowest).clamp_min(1e-3)
    starts = obs + far * width
    outside = (starts < model.lowest) | (starts > model.highest)
    change = case.data.next_observation - case.data.observation
    usual = (change.mean(0).abs() + 10 * change.std(0, correction=0)).float()
    steps = 3
    allowed = steps * usual + 1e-5 * (starts.abs() + width)
    actions = act[:, None, None].expand(-1, 2, steps, -1)
    for kind in KINDS:
        futures = Propagation(model, kind).trajectories(starts, actions, seeded(seed)).observations
        moved = (futures - starts[:, None, None]).abs().amax((0, 2, 3))
        assert bool((moved <= allowed)[outside].all())
        inside = futures[..., 1:, :].movedim(1, -2)
        assert bool(((inside >= model.lowest - 1e-4 * width - 1e-5 * obs.abs())
                     | outside[:, :]).all())  # fmt: skip
    sampled = model.sample(starts, act, seeded(seed)).observation
    assert bool(((sampled - starts).abs() <= allowed)[outside].all())
    assert sampled.shape[-1] == size


@examples(12)
@given(case=cases(), seed=st.integers(0, 2**31))
def test_types_of_inputs_do_not_matter(case: Case, seed: int) -> None:
    model, obs, act = case.model, case.data.observation.float(), case.data.action.float()
    narrow, wide = model.predict(obs, act), model.predict(obs.double(), act.double())
    assert isinstance(narrow, DiagonalGaussian) == isinstance(wide, DiagonalGaussian)
    assert close(wide.mean, narrow.mean, model.target_standardizer.std)
    actions = act[:, None, None].expand(-1, 2, 2, -1)
    for kind in KINDS:
        plan = Propagation(model, kind)
        one = plan.trajectories(obs, actions, seeded(seed)).observations
        other = plan.trajectories(obs.double(), actions.double(), seeded(seed)).observations
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)
    x, y = model.encode(case.data)
    assert x.dtype == y.dtype == torch.float32
