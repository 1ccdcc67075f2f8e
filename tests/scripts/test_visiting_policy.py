"""Models fitted where a policy goes, as a user trains them, and policies that are refused."""

import json

import pytest
import torch
import yaml

from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.main import run
from tests.agents.test_trained_policy import saved

DATASET = "pendulum/random-v0"
FLAGS = ("--members", "2", "--hidden", "16", "--steps", "150", "--outer-every", "5")
VISITED = ("--objective", "bilevel", "--outer-objective", "visited")


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """A data set of Pendulum-v1, and a folder with policies of three environments."""
    folder = tmp_path_factory.mktemp("policies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        made = ("collect", "--env", "Pendulum-v1", "--policy", "random", "--steps", "2000")
        assert run([*made, "--dataset", DATASET]) == 0
        for name in ("Pendulum-v1", "InvertedPendulum-v5"):
            saved(folder / name, name)
        (folder / "empty").mkdir()
        yield folder


def train(out, *flags):
    return run(["train-model", "--dataset", DATASET, "--out", str(out), *FLAGS, *VISITED, *flags])


@pytest.mark.parametrize("reward", ["mean", "diagonal_x"])
def test_a_model_is_trained_where_a_policy_goes(policies, tmp_path, monkeypatch, reward):
    """The policy is found from elsewhere; a finished run resumes to the same model."""
    monkeypatch.chdir(policies)
    flags = ("--visited-by", "Pendulum-v1", "--reward", reward)
    assert train(tmp_path / "run", *flags) == 0
    lines = [json.loads(s) for s in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rows = [line["outer/visited_rows"] for line in lines if "outer/visited_rows" in line]
    assert rows
    assert all(1 < r < 200 for r in rows)  # each member leaves one of ten episodes out
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["visited_by"] == str(policies / "Pendulum-v1")
    before = DynamicsModel.load(tmp_path / "run").state_dict()
    monkeypatch.chdir(tmp_path)
    flags = ("--visited-by", str(policies / "Pendulum-v1"), "--reward", reward, "--resume")
    assert train(tmp_path / "run", *flags) == 0
    after = DynamicsModel.load(tmp_path / "run").state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--outer-objective visited: name the policy by --visited-by"),
        (("--visited-by", "InvertedPendulum-v5"), "was trained for InvertedPendulum-v5"),
        (("--visited-by", "empty"), "empty holds no policy"),
        (("--visited-by", "no/where"), "--visited-by no/where is no run folder of train-agent"),
        (("--visited-by", "random"), "--visited-by random: random actions have no mean"),
        (("--visited-by", "a", "--outer-objective", "k_step"), "is of --outer-objective visited"),
        (("--visited-by", "Pendulum-v1", "--outer-horizon", "0"), "--outer-horizon 0"),
    ],
)
def test_what_cannot_be_followed_is_one_sentence(
    policies, tmp_path, monkeypatch, capsys, flags, words
):
    monkeypatch.chdir(policies)
    assert train(tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err.splitlines()
    assert words in error[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.situation("refused")
def test_an_agent_in_training_is_no_finished_policy(tmp_path, capsys):
    argv = ("train-agent", "--agent", "mbpo", "--env", "Pendulum-v1", "--out", tmp_path / "run")
    assert run([*map(str, argv), *VISITED, "--visited-by", "medium"]) == 2
    assert "follows a finished policy" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
