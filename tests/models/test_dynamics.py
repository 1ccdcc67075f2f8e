"""The dynamics model against slow references, and its files against damage."""

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.saved_model import describe
from mbrl_bilevel.models.settings import ModelSettings


def transitions(count=50, obs_dim=3, act_dim=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    obs = 5 + 3 * torch.randn(count, obs_dim, generator=g)
    return Transitions(
        observation=obs,
        action=torch.randn(count, act_dim, generator=g),
        reward=7 + torch.randn(count, generator=g),
        next_observation=obs + 0.1 * torch.randn(count, obs_dim, generator=g),
        terminated=torch.zeros(count, dtype=torch.bool),
        truncated=torch.zeros(count, dtype=torch.bool),
        episode=torch.arange(count) // 10,
    )


def dynamics(seed=0, options=None, **arguments):
    g = torch.Generator().manual_seed(seed)
    model = DynamicsModel(
        3,
        2,
        ModelSettings(members=4, hidden=(16,), **options or {}),
        generator=g,
        **arguments,
    )
    model.fit_standardizers(transitions())
    return model


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("learn_reward", [False, True])
def test_likelihood_in_raw_units_is_that_of_the_standardised_target(covariance, learn_reward):
    """log p(raw) = log p(standardised) - sum log scale: the change of variables."""
    model, data = (
        dynamics(options={"covariance": covariance}, learn_reward=learn_reward).double(),
        transitions(),
    )
    columns = {k: v for k, v in vars(data).items() if v is not None}
    data = Transitions(
        **{k: v.double() if v.is_floating_point() else v for k, v in columns.items()}
    )
    x, y = model.encode(data)
    raw = data.next_observation - data.observation
    if learn_reward:
        raw = torch.cat([raw, data.reward.unsqueeze(-1)], -1)
    left = model.predict(data.observation, data.action).log_prob(raw)
    right = model.network(x).log_prob(y) - model.target_standardizer.std.log().sum()
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


def test_targets_are_standardised_changes():
    model, data = dynamics(learn_reward=True), transitions()
    x, y = model.encode(data)
    for part in (x, y):
        torch.testing.assert_close(part.mean(0), torch.zeros(part.shape[1]), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            part.std(0, correction=0), torch.ones(part.shape[1]), rtol=1e-4, atol=0
        )


def test_samples_of_one_member_have_its_mean_and_deviation():
    model = dynamics()
    obs, act = transitions(1).observation, transitions(1).action
    count = 20_000
    member = torch.full((count,), 2)
    g = torch.Generator().manual_seed(1)
    samples = model.sample(obs.expand(count, -1), act.expand(count, -1), g, member).observation
    gaussian = model.predict(obs, act)
    std = gaussian.std[2, 0]
    # 20,000 samples: standard errors of sigma / 141 and sigma / 200; four of them.
    assert ((samples.mean(0) - obs[0] - gaussian.mean[2, 0]).abs() < 4 * std / 141).all()
    assert ((samples.std(0) - std).abs() < 4 * std / 200).all()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10_001])
def test_the_mixture_gives_every_row_its_own_next_step(count):
    model = dynamics(learn_reward=True)
    model.elites = torch.tensor([3, 1, 0])
    model.network.set_std(torch.full((4, 4), 1e-6))
    model.lowest.fill_(-1e9)
    model.highest.fill_(1e9)
    data = transitions(count, seed=3)
    g = torch.Generator().manual_seed(2)
    step = model.sample(data.observation, data.action, g)
    means = model.predict(data.observation, data.action).mean
    observation = data.observation + means[..., :3]
    distance = (observation - step.observation).abs().amax(-1)
    chosen = distance.argmin(0)
    assert distance.amin(0).max() < 1e-3
    assert set(chosen.tolist()) <= {0, 1, 3}
    torch.testing.assert_close(
        step.reward, means[chosen, torch.arange(count), 3], rtol=0, atol=1e-3
    )
    if count > 100:  # equal shares, up to the rows that fill the last member
        assert (torch.bincount(chosen, minlength=4)[[0, 1, 3]] / count - 1 / 3).abs().max() < 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"covariance": "diagonal"},
        {"covariance": "full", "layer_norm": True},
        {"noise": "constant", "layer_norm": True, "dropout": 0.25},
    ],
    ids=["diagonal", "full", "constant noise"],
)
def test_a_loaded_model_predicts_the_same(tmp_path, options):
    spec = EnvSpec("Hopper-v5", {"healthy_z_range": (0.5, float("inf"))}, max_episode_steps=50)
    model = dynamics(learn_reward=True, env_spec=spec, options=options)
    model.network.widen_std(torch.linspace(0.5, 2.0, 16).reshape(4, 4))
    model.elites = torch.tensor([3, 1])
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    data = transitions()
    ours, theirs = (m.predict(data.observation, data.action) for m in (model, loaded))
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.scale_tril, theirs.scale_tril)
    assert loaded.env_id == "Hopper-v5"
    assert loaded.env_spec == spec
    assert loaded.elites.tolist() == [3, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "model.yaml"]
    assert describe(loaded) == describe(model)
    g = torch.Generator().manual_seed(1)
    x = torch.randn(7, 5, generator=g)
    dropped = []
    for network in (model.network.network, loaded.network.network):
        with network.dropping_out(torch.Generator().manual_seed(2)):
            dropped.append(network(x))
    assert torch.equal(*dropped)
    assert torch.equal(dropped[0], model.network.network(x)) == ("dropout" not in options)


def test_a_model_of_version_0_1_has_the_defaults_of_what_it_does_not_say(tmp_path):
    model = dynamics(env_id="Hopper-v5")
    model.save(tmp_path)
    path = tmp_path / "model.yaml"
    description = yaml.safe_load(path.read_text())
    for name in ("env", "noise", "layer_norm", "dropout"):
        del description[name]
    path.write_text(yaml.safe_dump(description))
    loaded = DynamicsModel.load(tmp_path)
    assert loaded.env_spec == EnvSpec("Hopper-v5")
    network = loaded.network
    assert (network.noise, network.layer_norm, network.dropout) == ("input", False, 0.0)
    data = transitions()
    ours, theirs = (m.predict(data.observation, data.action) for m in (model, loaded))
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.std, theirs.std)


def test_imagined_states_stay_in_the_widened_range_of_the_data():
    model, data = dynamics(), transitions()
    seen = torch.cat([data.observation, data.next_observation])
    low, high = seen.amin(0), seen.amax(0)
    torch.testing.assert_close(model.lowest, low - 0.1 * (high - low))
    torch.testing.assert_close(model.highest, high + 0.1 * (high - low))
    with torch.no_grad():
        model.target_standardizer.mean.fill_(100.0)
    actions = torch.zeros(2, 1, 5, 2)
    imagined = Propagation(model).trajectories(data.observation[:2], actions, torch.Generator())
    torch.testing.assert_close(
        imagined.observations[..., 1:, :], model.highest.expand(4, 2, 1, 5, 3)
    )


def damage_yaml(folder, **changes):
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def damage_weights(folder, name, add=0, dtype=None):
    weights = load_file(folder / "model.safetensors")
    weights[name] = (weights[name] + add).to(dtype or weights[name].dtype)
    save_file(weights, folder / "model.safetensors")


def flip_last_bit(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "holds no model"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 100), "damaged"),
        (lambda f: (f / "model.yaml").write_text("{: ["), "damaged"),
        (lambda f: (f / "model.yaml").write_text("- 1"), "does not fit"),
        (lambda f: (f / "model.yaml").write_text("!!python/object/apply:os.getcwd []"), "damaged"),
        (lambda f: damage_yaml(f, obs_dim=4, observation_names=list("abcd")), "does not fit"),
        (lambda f: damage_yaml(f, hidden=[10**9]), "does not fit"),
        (lambda f: damage_yaml(f, surprise=1), "does not fit"),
        (lambda f: damage_yaml(f, obs_dim=10**12, observation_names=None), "does not fit"),
        (lambda f: damage_yaml(f, members=-1), "does not fit"),
        (lambda f: damage_yaml(f, members=True), "does not fit"),
        (lambda f: damage_yaml(f, hidden=[1] * 10**5), "does not fit"),
        (lambda f: damage_yaml(f, env_id=["Hopper-v5"]), "does not fit"),
        (lambda f: damage_yaml(f, env=EnvSpec("Hopper-v5").to_plain()), "env says 'Hopper-v5'"),
        (lambda f: damage_yaml(f, env={"id": "Hopper-v5"}), "does not fit"),
        (lambda f: damage_yaml(f, log_std_bounds=[-10.0, float("nan")]), "does not fit"),
        (lambda f: damage_yaml(f, log_std_bounds=[2.0, 1.0]), "the model in .* does not fit"),
        (lambda f: damage_yaml(f, observation_names=["a"]), "the model in .* does not fit"),
        (lambda f: damage_yaml(f, action_box=[[-1.0], [1.0]]), "does not fit .*action_box is"),
        (lambda f: damage_yaml(f, action_box="all"), "does not fit .*action_box is 'all'"),
        (lambda f: damage_yaml(f, covariance="none"), "does not fit"),
        (lambda f: damage_yaml(f, noise="loud"), "does not fit .*noise is 'loud'"),
        (lambda f: damage_yaml(f, noise="constant"), "does not fit"),
        (lambda f: damage_yaml(f, layer_norm=1), "does not fit .*layer_norm is 1"),
        (lambda f: damage_yaml(f, dropout=1.0), "does not fit .*dropout is 1.0"),
        (lambda f: damage_yaml(f, dropout=float("nan")), "does not fit .*dropout is nan"),
        (lambda f: damage_weights(f, "lowest", dtype=torch.float64), "lowest is torch.float64"),
        (lambda f: damage_weights(f, "elites", add=9), "no members"),
        (lambda f: damage_weights(f, "target_standardizer.std", add=-99), "not positive"),
        (lambda f: (f / "model.yaml").write_text("a: &a [1]\nb: *a"), "damaged .it holds aliases"),
        (lambda f: (f / "model.yaml").write_text("[" * 10**5), "damaged .it is nested"),
        (lambda f: (f / "model.yaml").write_text("#" * 2**25), "damaged .it is larger than"),
        (lambda f: flip_last_bit(f / "model.safetensors"), "damaged .its checksum"),
    ],
)
def test_damaged_models_are_refused_in_one_sentence(tmp_path, damage, words):
    dynamics().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=words) as error:
        DynamicsModel.load(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path):
    model = dynamics()
    model.save(tmp_path)
    damage_weights(tmp_path, "network.network.layers.0.weight", add=torch.nan)
    with pytest.raises(InputError, match="not finite"):
        DynamicsModel.load(tmp_path)
    with torch.no_grad():
        model.network.network.layers[0].weight[0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite is not saved"):
        model.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
