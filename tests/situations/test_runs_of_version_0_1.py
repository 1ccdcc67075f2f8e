"""Runs that version 0.1 left: their models and policies are read, and they cannot be resumed.

The numbers are what version 0.1 itself printed for these files (`runs_of_version_0_1/README.md`).
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.main import run

RUNS = Path(__file__).parent / "runs_of_version_0_1"
COMMITS = ("88cbf06", "919fb80")
DATASET = "pendulum/random-v0"
MODEL = ("--members", "2", "--hidden", "8")
RESUMED = {
    "model": ("train-model", "--dataset", DATASET, *MODEL, "--steps", "200"),
    "mbpo": (
        *("train-agent", "--agent", "mbpo", "--env", "Pendulum-v1", *MODEL, "--policy-hidden", "8"),
        *("--steps", "140", "--start-steps", "110", "--model-steps", "20", "--refit-every", "15"),
        *("--rollouts", "4", "--rollout-length", "1", "1", "0", "1", "--updates-per-step", "1"),
        *("--evaluate-every", "140", "--log-every", "70", "--episodes", "1"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory):
    """The data set of the runs: the same command writes it as under 0.1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        made = ("collect", "--env", "Pendulum-v1", "--policy", "random", "--dataset", DATASET)
        assert run([*made, "--steps", "2000"]) == 0
        yield


@pytest.fixture(params=COMMITS)
def runs(request, tmp_path):
    """Copies, for evaluations are written beside what they evaluate."""
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


def result(capsys, *flags):
    assert run([*map(str, flags), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_model_predicts_what_it_predicted(runs):
    obs = torch.tensor([[1.0, 0.0, 0.5], [0.6, -0.8, -2.0]])
    found = DynamicsModel.load(runs / "model").predict(obs, torch.tensor([[1.5], [-0.3]]))
    mean = [
        [[0.00603033, 0.03883238, 0.09785429], [-0.01758792, 0.05469743, -0.61105108]],
        [[0.0484836, -0.00347347, 0.0897889], [-0.06542417, 0.02551776, -0.51462686]],
    ]
    std = [
        [[0.0998104, 0.12491435, 0.23095323], [0.11666714, 0.11466065, 0.20072952]],
        [[0.1077631, 0.11666684, 0.26158801], [0.12259351, 0.10082404, 0.47209853]],
    ]
    torch.testing.assert_close(found.mean, torch.tensor(mean), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.std, torch.tensor(std), rtol=1e-4, atol=1e-6)


def test_eval_model_finds_the_errors_that_it_had(runs, capsys):
    found = result(capsys, "eval-model", "--model", runs / "model", "--horizons", "1")
    assert found["rmse"] == pytest.approx(0.6575935, rel=1e-4)
    assert found["nll"] == pytest.approx(0.9982133, rel=1e-4)


@pytest.mark.filterwarnings("default:.* starts lie outside the range")  # of the 140 steps it saw
def test_eval_model_reads_the_model_of_an_agent(runs, capsys):
    flags = ("--dataset", DATASET, "--horizons", "1")
    found = result(capsys, "eval-model", "--model", runs / "mbpo", *flags)
    assert 0 < found["rmse"] < 3  # after 20 steps on 110 transitions: little better than the mean


def test_eval_agent_plays_the_policy_as_it_played(runs, capsys):
    flags = ("--episodes", "2", "--max-steps", "20", "--workers", "1")
    found = result(capsys, "eval-agent", "--agent", "policy", "--model", runs / "mbpo", *flags)
    assert found["env"] == "Pendulum-v1"
    assert found["returns"] == pytest.approx([-120.3515336, -118.1462765], rel=1e-4)


@pytest.mark.parametrize("kind", RESUMED)
def test_resuming_is_refused_in_one_sentence_and_changes_nothing(runs, kind, capsys):
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    flags = (*RESUMED[kind], "--device", "cpu", "--out", str(runs / kind), "--resume")
    assert run(list(flags)) == 2
    text = capsys.readouterr().err.strip().splitlines()[-1]
    assert text.startswith(f"mbrl-bilevel {flags[0]}: --resume: the run in {runs / kind} began")
    assert text.endswith("choose another --out, or go on with the version that began it")
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
