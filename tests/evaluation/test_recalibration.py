"""Recalibration: factors against their closed form, what uses them, the command that does it."""

import json
import shutil

import pytest
import torch
import yaml

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.data.split import split
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.recalibration import recalibrate, stored_factors
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.propagation import Propagation
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.scripts.main import run
from mbrl_bilevel.scripts.training_data import described
from mbrl_bilevel.training.fit import fit
from mbrl_bilevel.training.folder_lock import FolderLock
from mbrl_bilevel.training.settings import FitSettings

FACTOR, ROWS = torch.tensor([0.5, 3.0]), 4000
KINDS = [{}, {"kind": "separate_noise"}, {"kind": "two_means"}, {"covariance": "full"}]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def model_of(kind="gaussian", members=2, **size):
    size = ModelSettings(members=members, hidden=(8,), **size)
    return DynamicsModel(2, 1, size, kind=kind, generator=seeded())


def rows_about(model, factor, count=ROWS):
    """Changes by the first member's mean, and its deviations times `factor`."""
    obs, act = (
        torch.randn(count, 2, generator=seeded(1)),
        torch.randn(count, 1, generator=seeded(2)),
    )
    predicted = model.predict(obs, act)
    noise = factor * predicted.std[0] * torch.randn(count, 2, generator=seeded(3))
    never, nothing = torch.zeros(count).bool(), torch.zeros(count)
    after = (obs + predicted.mean[0] + noise).detach()
    return Transitions(obs, act, nothing, after, never, never, torch.arange(count) // 100)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_known_factor_is_found(kind):
    """4,000 rows tell a deviation to 1.1 %: four times that."""
    model = model_of(members=1, **kind)
    rows = rows_about(model, FACTOR)
    before = model.predict(rows.observation, rows.action)
    x, y = model.encode(rows)
    z = (y - model.network(x).mean) / model.network(x).std
    found = recalibrate(model, rows)
    torch.testing.assert_close(found, z.square().mean((0, 1)).sqrt(), rtol=2e-4, atol=0)
    torch.testing.assert_close(found, FACTOR, rtol=0.045, atol=0)
    after = model.predict(rows.observation, rows.action)
    torch.testing.assert_close(after.std, found * before.std)
    torch.testing.assert_close(after.mean, before.mean, rtol=0, atol=0)
    assert stored_factors(model) == pytest.approx(found.tolist())
    torch.testing.assert_close(recalibrate(model, rows), found, rtol=1e-5, atol=0)


def test_no_other_factor_has_a_higher_likelihood_over_the_elites():
    model = model_of()
    rows = rows_about(model, FACTOR)
    x, y = model.encode(rows)

    def nll(factor):
        model.network.recalibrate(factor)
        return -model.network(x).log_prob(y).logsumexp(0).mean().item()

    found = recalibrate(model, rows)
    best = nll(found)
    for i in (0, 1):
        for change in (0.98, 1.02):
            other = found.clone()
            other[i] *= change
            assert nll(other) > best


def test_samples_and_imagined_futures_spread_by_the_factor():
    model, obs, act = model_of(), torch.zeros(6, 2), torch.zeros(6, 1)
    drawn = []
    for factor in (torch.ones(2), FACTOR):
        model.network.recalibrate(factor)
        step = model.sample(obs, act, seeded(5)).observation
        futures = Propagation(model, "ts_inf").trajectories(obs, act[:, None, None], seeded(6))
        drawn.append((step, futures.observations[..., 1, :]))
    still = Propagation(model, "mean").trajectories(obs, act[:, None, None], seeded(6))
    mean = still.observations[..., 1, :]
    torch.testing.assert_close(drawn[1][1] - mean, FACTOR * (drawn[0][1] - mean))
    both = model.predict(obs, act).mean
    # The row's member is one of two: by whichever, its sample moves away from a mean by FACTOR.
    moved = [torch.isclose(drawn[1][0] - m, FACTOR * (drawn[0][0] - m), atol=1e-5) for m in both]
    assert (moved[0] | moved[1]).all()


def test_factors_are_saved_selected_and_dropped_by_a_new_fit(tmp_path):
    model = model_of()
    rows = rows_about(model, FACTOR, 300)
    found = recalibrate(model, rows)
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    assert stored_factors(loaded) == pytest.approx(found.tolist())
    x = model.inputs(rows.observation, rows.action)
    assert torch.equal(loaded.network(x).std, model.network(x).std)
    chosen = loaded.network.select(torch.tensor([1]))
    assert torch.equal(chosen(x).std, model.network(x).std[1:])
    settings = FitSettings(steps=2, batch_size=16)
    fit(loaded, NLL(), rows, rows, generator=seeded(), settings=settings, progress=False)
    assert stored_factors(loaded) is None


def test_too_few_rows_and_errors_of_nothing_are_refused():
    model = model_of()
    with pytest.raises(InputError, match="by 99 held-out rows: it takes at least 100"):
        recalibrate(model, rows_about(model, FACTOR, 99))
    assert stored_factors(model) is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder of an untrained model, whose held-out part has 200 rows, and one of 20."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        for name, steps in (("pendulum/random-v0", 2000), ("pendulum/few-v0", 200)):
            made = ("collect", "--env", "Pendulum-v1", "--policy", "random", "--dataset", name)
            assert run([*made, "--steps", str(steps)]) == 0
            data = load_dataset(name)
            size = ModelSettings(members=2, hidden=(8,))
            model = DynamicsModel(3, 1, size, env_id="Pendulum-v1", generator=seeded())
            model.fit_standardizers(split(data.transitions)[0])
            model.save(folder / str(steps))
            config = {"seed": 0, "max_transitions": None} | described(name, data)
            (folder / str(steps) / "config.yaml").write_text(yaml.safe_dump(config))
        yield folder


def test_eval_model_stores_the_factors_and_evaluates_with_them(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained / "2000", folder)
    flags = ["eval-model", "--model", str(folder), "--horizons", "1", "--json"]
    results = []
    for more in ([], ["--recalibrate"], []):
        assert run([*flags, *more]) == 0
        results.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    before, with_factors, after = results
    assert before["recalibration"] is None
    assert after["recalibration"] == with_factors["recalibration"]
    assert after["nll"] == with_factors["nll"] != before["nll"]
    assert after["rmse"] == before["rmse"]
    model = DynamicsModel.load(trained / "2000")
    held_out = split(load_dataset("pendulum/random-v0").transitions)[1]
    assert with_factors["recalibration"] == pytest.approx(recalibrate(model, held_out).tolist())


@pytest.mark.filterwarnings("default::UserWarning")
def test_bad_input_is_one_sentence_and_nothing_is_stored(trained, tmp_path, capsys):
    folder, few = tmp_path / "run", tmp_path / "few"
    shutil.copytree(trained / "2000", folder)
    shutil.copytree(trained / "200", few)
    before = (folder / "model.safetensors").read_bytes()
    flags = ["eval-model", "--recalibrate", "--horizons", "1", "--model"]
    assert run([*flags, str(folder), str(few)]) == 2
    assert "held-out rows: it takes at least 100" in capsys.readouterr().err.splitlines()[-1]
    lock = FolderLock(folder)
    assert run([*flags, str(folder)]) == 2
    assert "a training writes to" in capsys.readouterr().err.splitlines()[-1]
    lock.release()
    (folder / "config.yaml").unlink()
    assert run([*flags, str(folder), "--dataset", "pendulum/random-v0"]) == 2
    assert "held-out episodes of" in capsys.readouterr().err.splitlines()[-1]
    assert (folder / "model.safetensors").read_bytes() == before
