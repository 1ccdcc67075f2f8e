"""Fits of the model to the replay: what is new is evaluated first, blocks of time are held out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.refit import BLOCK, ModelFits, check_first_fit, fit_settings, in_blocks
from mbrl_bilevel.agents.setting_groups import AgentModelSettings, RefitSettings
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.settings import OBJECTIVES, NLLSettings, TwoMeansSettings
from tests.agents.test_model_rollouts import CHANGE, TASK, linear_model, seeded


def fits(model, *, task=None, fit=None, model_steps=5, **settings):
    """`fit` takes the place of fitting."""
    size = AgentModelSettings(members=2, hidden=(4,), model_steps=model_steps)
    found = ModelFits(RefitSettings(**settings), size, NLLSettings(), model, seeded(), task=task)
    found.fit_to = fit or found.fit_to
    return found


def replay(count, capacity=400, **columns):
    held = Replay(capacity, 2, 1)
    held.add(real_data(count)._replace(**columns))
    return held


def real_data(count, seed=0):
    obs = torch.randn(count, 2, generator=seeded(seed))
    action = torch.rand(count, 1, generator=seeded(seed + 1))
    after = obs + torch.cat([obs, action], 1) @ CHANGE
    zeros = torch.zeros(count)
    return Batch(obs, action, zeros, after, zeros)


def test_new_data_are_evaluated_before_the_model_learns_from_them():
    """The fit makes the model worse on purpose: the metrics are of the model before it."""
    seen, model = [], linear_model(std=1.0)

    def fit(data):
        seen.append(len(data))
        with torch.no_grad():  # its predictions are now off by 0.1 and 0.3
            layer = model.network.network.linear_layers()[-1]
            layer.bias[:, :, :2] = torch.tensor([0.1, 0.3])
        return {"held_out_nll": 1.25}

    learned = fits(model, fit=fit)
    learned.fit(replay(60))
    assert learned.latest == {"model/held_out_nll": 1.25}
    with torch.no_grad():
        model.network.network.linear_layers()[-1].bias[:, :, :2] = 0
    learned.fit(replay(80))
    assert learned.latest["model/fresh_rmse"] == pytest.approx(0, abs=1e-6)
    learned.fit(replay(100))
    rmse = ((0.1**2 + 0.3**2) / 2) ** 0.5
    assert learned.latest["model/fresh_rmse"] == pytest.approx(rmse, rel=1e-4)
    nll = 0.5 * np.log(2 * np.pi) + (0.1**2 + 0.3**2) / 4
    assert learned.latest["model/fresh_nll"] == pytest.approx(nll, rel=1e-4)
    assert seen == [60, 80, 100]
    assert learned.fitted_to == 100


def test_only_what_is_new_is_evaluated():
    learned = fits(linear_model(std=1.0), fit=lambda data: {})
    learned.fit(replay(60))
    wrong = real_data(80).next_observation.clone()
    wrong[:60] += 100  # of the old ones
    learned.fit(replay(80, next_observation=wrong))
    assert learned.latest["model/fresh_rmse"] == pytest.approx(0, abs=1e-6)


def test_each_fit_goes_on_from_the_weights_of_the_last_and_keeps_elites():
    """Of noiseless linear changes: more fits, less error."""
    model = DynamicsModel(
        2, 1, AgentModelSettings(members=2, hidden=(4,)), env_id="Line-v0", generator=seeded()
    )
    learned = fits(model, model_steps=300)
    learned.size = AgentModelSettings(members=2, hidden=(4,), model_steps=300, elites=1)
    learned.fit(replay(300))
    first = learned.latest["model/held_out_mse"]
    for _ in range(3):
        learned.fit(replay(300))
    assert learned.latest["model/held_out_mse"] < first / 2
    assert len(model.elites) == 1


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_share_held_out_and_the_evaluations_are_those_of_the_settings(monkeypatch, share):
    seen = {}

    def fit(model, objective, train, held, *, settings, **how):
        seen.update(rows=(len(train), len(held)), **vars(settings))
        raise InterruptedError

    monkeypatch.setattr("mbrl_bilevel.agents.refit.fit", fit)
    settings = {"model_held_out": share, "model_learning_rate": 0.02, "model_evaluations": 5}
    with pytest.raises(InterruptedError):
        fits(linear_model(), model_steps=30, model_schedule="cosine", **settings).fit(
            replay(20 * BLOCK, capacity=20 * BLOCK)
        )
    assert seen["rows"][1] == pytest.approx(share * 20 * BLOCK, abs=BLOCK)
    assert sum(seen["rows"]) == 20 * BLOCK
    chosen = (seen["steps"], seen["evaluate_every"], seen["learning_rate"], seen["schedule"])
    assert chosen == (30, 6, 0.02, "cosine")


@pytest.mark.situation("refused")
def test_the_first_data_are_held_against_the_task():
    """Real steps pay 0, the task something else; unchecked, or later, nobody asks."""
    task = replace(TASK, terminated=lambda n: n[..., 0] > 99.0)
    learned = fits(linear_model(), task=task, fit=lambda data: {})
    with pytest.raises(InputError, match=r"random steps in the environment hold .*--learn-reward"):
        learned.fit(replay(60))
    learned.task = TASK
    with pytest.raises(InputError, match="go on regardless by --unchecked-task"):
        learned.fit(replay(60))
    learned.fitted_to = 50
    learned.fit(replay(60))
    unchecked = fits(linear_model(), fit=lambda data: {})
    unchecked.fit(replay(60))
    assert unchecked.fitted_to == learned.fitted_to == 60


def test_blocks_of_time_stand_for_episodes():
    data = real_data(2 * BLOCK + 7)._replace(terminated=torch.ones(2 * BLOCK + 7))
    found = in_blocks(data)
    assert found.episode.tolist() == [0] * BLOCK + [1] * BLOCK + [2] * 7
    assert found.terminated.all()
    assert not found.truncated.any()
    for name in ("observation", "action", "reward", "next_observation"):
        assert torch.equal(getattr(found, name), getattr(data, name))


@pytest.mark.parametrize("objective", ["nll", "two_means"])
@pytest.mark.parametrize("members", [2, 5])
def test_the_least_number_of_start_steps_is_enough_and_one_less_is_not(objective, members):
    spec = OBJECTIVES.settings(objective)()
    with pytest.raises(InputError) as found:
        check_first_fit(spec, members, 0.1, 1)
    least = int(str(found.value).split("choose at least ")[1].split(",")[0])
    check_first_fit(spec, members, 0.1, least)
    with pytest.raises(InputError, match=f"choose at least {least}"):
        check_first_fit(spec, members, 0.1, least - 1)


@pytest.mark.situation("refused")
def test_one_member_has_nobody_to_leave_data_out_from():
    with pytest.raises(InputError, match="--members 1: --objective two_means leaves other data"):
        check_first_fit(TwoMeansSettings(), 1, 0.1, 1_000)
    check_first_fit(TwoMeansSettings(outer_data="held_out"), 1, 0.1, 1_000)


def test_its_state_leads_to_the_same_metrics():
    first, second = (fits(linear_model(), fit=lambda data: {"held_out_nll": 0.5}) for _ in "ab")
    first.fit(replay(60))
    second.load_state({k: v.clone() for k, v in first.state().items()})
    assert (second.fitted_to, second.latest) == (60, {"model/held_out_nll": 0.5})


def held_out_settings(**settings):
    return RefitSettings(model_stop="held_out", model_batch_size=100, **settings)


def test_a_fit_of_fixed_length_has_no_test_of_progress():
    found = fit_settings(RefitSettings(model_batch_size=100), 40, 1_000)
    assert (found.steps, found.evaluate_every) == (40, 10)
    assert found.patience is found.progress_level is None


def test_held_out_scores_end_a_fit_after_an_epoch_each_by_default():
    """The rule of MBPO: no gain for 5 epochs."""
    found = fit_settings(held_out_settings(model_patience=5, model_cap=2.5), 40, 1_050)
    assert (found.steps, found.evaluate_every, found.patience) == (100, 10, 5)
    assert found.progress_level == 0.5
    few = fit_settings(held_out_settings(model_evaluate_every=7, model_progress_level=0.1), 40, 20)
    assert (few.evaluate_every, few.progress_level) == (7, 0.1)
    assert fit_settings(held_out_settings(), 40, 20).evaluate_every == 1


def test_a_cap_beyond_all_counting_is_no_cap():
    assert fit_settings(held_out_settings(model_cap=1e6), 100_000, 1_000).steps == 2**31 - 1


@pytest.mark.parametrize("objective", OBJECTIVES.names)
def test_a_fit_by_any_objective_ends_without_progress_and_goes_on_with_its_optimiser(objective):
    """Of noise: the held-out score soon stops falling, long before the cap of 3,000 steps."""
    kind = OBJECTIVES.settings(objective).kind
    size = AgentModelSettings(members=2, hidden=(8,), model_steps=300)
    model = DynamicsModel(2, 1, size, env_id="Line-v0", kind=kind, generator=seeded())
    settings = RefitSettings(
        model_stop="held_out", model_patience=2, model_evaluate_every=5, model_cap=10.0,
        model_optimizer="kept", model_learning_rate=0.01,
    )  # fmt: skip
    # Noise does not go on from one row to the next: windows of it are one step long.
    window = {"outer_horizon": 1} if objective == "bilevel" else {}
    spec = OBJECTIVES.settings(objective)(**window)
    learned = ModelFits(settings, size, spec, model, seeded(), task=None)
    noise = torch.randn(400, 2, generator=seeded(7))
    held = replay(400, next_observation=noise)
    learned.fit(held)
    assert 15 <= learned.latest["model/fit_steps"] < 3_000
    assert learned.latest["model/fit_steps"] % 5 == 0
    moments = learned.state()["moments/0/step"]
    assert moments == learned.latest["model/fit_steps"]
    learned.fit(held)
    assert learned.state()["moments/0/step"] == moments + learned.latest["model/fit_steps"]


def test_rows_held_out_are_limited():
    settings = RefitSettings(model_held_out=0.2, model_held_out_rows=100)
    assert settings.held_out_share(400) == 0.2
    assert settings.held_out_share(1_000) == 0.1
    with pytest.raises(InputError, match="--model-held-out-rows 49: choose at least 50"):
        RefitSettings(model_held_out_rows=49)
