"""train-agent as a user runs it, on an environment of one's own that costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml

from mbrl_bilevel.agents.policy_evaluation import PolicyEvaluation, play, played
from mbrl_bilevel.agents.policy_file import load_policy_folder
from mbrl_bilevel.data import tensor_cache
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.envs.tasks import TASKS
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.products import plain_products
from mbrl_bilevel.scripts import eval_agent, main, train_agent
from mbrl_bilevel.scripts.training_data import described
from tests.scripts.test_eval_agent import in_this_process
from tests.scripts.tiny_agents import tiny

ENV, DATASET = "tests.scripts.point_environment:Point-v0", "point/random-v0"
OFTEN = ("--log-every", "10", "--evaluate-every", "10")
RARELY = ("--log-every", "130", "--evaluate-every", "130")
ONLINE = ("--env", ENV, "--start-steps", "110", "--steps", "130")
MODEL = ("--refit-every", "10", "--model-steps", "6")
IMAGINED = ("--imagine-every", "5", "--rollouts", "10", "--rollout-length", "1", "2", "110", "130")
ONCE = ("--updates-per-step", "1")


class InThisProcess(PolicyEvaluation):
    """Plays at once: a process of its own takes seconds to begin."""

    found = None

    def start(self, step, policy, critics=None):
        self.estimate(policy, critics)
        episodes = played(self.env, self.seed, self.episodes, policy, self.max_steps)
        self.found = step, self.metrics(episodes)

    def collect(self):
        found, self.found = self.found, None
        return found


@pytest.fixture(autouse=True)
def torch_as_before():
    """Without what the command switches on for its own process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    plain_products()


@pytest.fixture(scope="module", autouse=True)
def datasets(tmp_path_factory):
    """A data set of the point; what its module registers is forgotten in the end."""
    folder = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        made = ("collect", "--env", ENV, "--policy", "random", "--steps", "300")
        assert main.run([*made, "--dataset", DATASET]) == 0
        yield folder
    TASKS.pop("Point-v0", None)
    gymnasium.registry.pop("Point-v0", None)
    sys.modules.pop("tests.scripts.point_environment", None)


@pytest.fixture
def played_here(monkeypatch):
    monkeypatch.setattr(train_agent, "PolicyEvaluation", InThisProcess)


def train(out, *flags):
    agent = flags[flags.index("--agent") + 1]
    return main.run(["train-agent", "--out", str(out), *tiny(agent), *map(str, flags)])


def last_json(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def metrics(folder):
    """Without figures of time, which are others in every run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


AGENTS = {
    "sac": ("--agent", "sac", *ONLINE),
    "mbpo": ("--agent", "mbpo", *ONLINE, *MODEL, *IMAGINED, *ONCE),
    "mbpo two_means": (
        "--agent",
        "mbpo",
        "--objective",
        "two_means",
        *ONLINE,
        *MODEL,
        *IMAGINED,
        *ONCE,
    ),
    "mopo": (
        *("--agent", "mopo", "--dataset", DATASET, "--env", ENV, "--steps", "20"),
        *("--model-steps", "6", "--imitate-steps", "5", "--imagine-every", "5", "--rollouts", "10"),
        *("--rollout-length", "2", "2", "0", "1"),
    ),
    "bc": ("--agent", "bc", "--dataset", DATASET, "--env", ENV, "--steps", "20"),
}


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_learns_a_policy_that_earns_what_is_said(played_here, tmp_path, capsys, name):
    out = tmp_path / "run"
    assert train(out, *AGENTS[name], *OFTEN, "--json") == 0
    found = last_json(capsys)
    steps = 20 if name in ("mopo", "bc") else 130
    assert (found["run"], found["steps"]) == (str(out), steps)
    assert found["seconds"] > 0
    policy = load_policy_folder(out)
    returns = play(ENV, 0, 2, policy)
    assert found["mean_return"] == pytest.approx(np.mean(returns))
    assert found["std_return"] == pytest.approx(np.std(returns))
    assert json.loads((out / "summary.json").read_text()) == found
    assert policy.metadata["env_id"] == ENV
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["steps"], config["env"]) == (steps, ENV)
    lines = metrics(out)
    assert [m["step"] for m in lines if "evaluation/return" in m] == list(range(10, steps + 1, 10))
    assert "policy/critic_loss" in lines[-2]
    assert lines[-1]["evaluation/return"] == found["mean_return"]
    assert (out / "model.safetensors").exists() == (name not in ("sac", "bc"))
    assert (out / "critic.safetensors").exists()
    if name.startswith("mbpo"):
        assert DynamicsModel.load(out).env_id == "Point-v0"
        assert {"model/fresh_rmse", "model/held_out_nll", "rollout/rollout_length"} <= lines[
            -2
        ].keys()
    if name == "mopo":
        assert DynamicsModel.load(out / "model").members == 2
        assert lines[-2]["rollout/penalty"] > 0


def test_pets_leaves_its_last_step_even_between_two_fits(tmp_path, capsys):
    flags = ("--start-steps", "110", "--steps", "112", "--refit-every", "5", "--model-steps", "6")
    out = tmp_path / "run"
    assert train(out, "--agent", "pets", "--env", ENV, *flags, "--planner", "cem", "--json") == 0
    found = last_json(capsys)
    assert (found["steps"], found["mean_return"]) == (112, None)
    assert found["run"] == str(out)
    assert DynamicsModel.load(out).members == 2
    assert (out / "checkpoint.safetensors").is_file()
    before = metrics(out)
    assert before[-1]["step"] == 112
    assert train(out, "--agent", "pets", "--env", ENV, *flags, "--planner", "cem", "--resume") == 0
    assert metrics(out) == before


@pytest.mark.slow
def test_the_same_seed_learns_the_same_and_another_seed_another(played_here, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train(tmp_path / name, *AGENTS["mbpo"], *RARELY, "--seed", seed) == 0
    policies = [(tmp_path / name / "policy.safetensors").read_bytes() for name in "abc"]
    assert policies[0] == policies[1] != policies[2]
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")


def test_a_trained_model_and_a_trained_policy_go_on(played_here, tmp_path, capsys, monkeypatch):
    """mopo in a model given, and eval-agent with the policy that came out of it."""
    settings = (*("--members", "2", "--hidden", "8", "--steps", "20"), "--env", ENV)
    model = str(tmp_path / "model")
    assert main.run(["train-model", "--dataset", DATASET, "--out", model, *settings]) == 0
    out = tmp_path / "run"
    flags = ("--model", model, *AGENTS["mopo"][:-5], "--rollout-length", "2", "2", "0", "1")
    assert train(out, *flags, *OFTEN) == 0
    assert not (out / "model").exists()
    given, kept = DynamicsModel.load(model).state_dict(), DynamicsModel.load(out).state_dict()
    assert all(torch.equal(given[name], kept[name]) for name in given)
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    judge = ("eval-agent", "--agent", "policy", "--model", str(out), "--episodes", "2", "--json")
    capsys.readouterr()
    assert main.run([*judge, "--env", ENV]) == 0
    found = last_json(capsys)
    assert len(found["returns"]) == 2
    assert -45 < found["mean_return"] < 0  # at most 20 steps of at most 1.5^2 each
    assert main.run([*judge]) == 2
    assert "would import code: if you trust it" in capsys.readouterr().err


MOPO = ("--agent", "mopo", "--dataset", DATASET, "--env", ENV)


@pytest.mark.situation("right")
@pytest.mark.parametrize("agent", ["mbpo", "pets"])
@pytest.mark.parametrize("start", [3, 60])
@pytest.mark.filterwarnings("ignore:.* starts lie outside")
def test_start_steps_that_are_enough_for_the_check_are_enough(
    played_here, tmp_path, capsys, agent, start
):
    flags = ("--start-steps", start, "--steps", start + 2, "--model-steps", "3", "--env", ENV)
    objective = ("--objective", "two_means") if start > 50 else ()
    own = ("--rollouts", "5", *ONCE) if agent == "mbpo" else ("--planner", "random_shooting")
    flags += ("--agent", agent, "--log-every", "130")
    assert train(tmp_path / "run", *flags, *objective, *own) == 0
    said = capsys.readouterr().err
    assert "metrics will look better than they are" in said
    few = "50 steps in a row stand for an episode here: take more --start-steps"
    assert few in said or (objective and "use held-out outer data instead, or more data" in said)
    assert "collect more" not in said


@pytest.mark.situation("refused")
@pytest.mark.parametrize("name", ["mbpo", "mopo"])
def test_more_memory_than_there_is_leaves_no_folder(tmp_path, capsys, name):
    """No address space holds so many imagined rollouts."""
    lengths = ("--rollout-length", "1", "100000", "0", "1")
    out = tmp_path / "run"
    assert train(out, *AGENTS[name], "--rollouts", 2**31 - 1, *lengths) == 1
    assert "not enough memory" in capsys.readouterr().err
    assert not out.exists()


def test_an_environment_without_a_task_says_how_to_add_one(tmp_path, capsys):
    """Its lines are a program: run as they stand, they register the task."""
    env = "MountainCarContinuous-v0"
    assert train(tmp_path / "run", "--agent", "mbpo", "--env", env) == 2
    error = capsys.readouterr().err
    assert f"no task for environment '{env}'" in error
    lines = error[error.index("    import torch") :]
    try:
        exec("\n".join(line.removeprefix("    ") for line in lines.splitlines()), {})
        assert TASKS[env].reward(*torch.tensor([[[0.0]], [[2.0]], [[3.0]]])).item() == (
            pytest.approx(-3.04)
        )
    finally:
        TASKS.pop(env, None)


def test_a_data_set_whose_environment_would_import_code(datasets, tmp_path, capsys):
    metadata = datasets / DATASET / "data" / "metadata.json"
    before = metadata.read_text()
    found = json.loads(before)
    found["env_spec"] = json.dumps({**json.loads(found["env_spec"]), "id": "os:Point-v0"})
    metadata.write_text(json.dumps(found))
    try:
        assert train(tmp_path / "run", "--agent", "mopo", "--dataset", DATASET) == 2
    finally:
        metadata.write_text(before)
    assert "'os:Point-v0', which would import code" in capsys.readouterr().err


@pytest.mark.situation("refused")
def test_a_policy_does_not_go_on_with_data_that_have_changed(tmp_path, capsys):
    """Refused by what config.yaml says of the data, before anything else is looked at."""
    held = described(DATASET, load_dataset(DATASET))
    held["fingerprint"] |= {"episodes": 2, "steps": 200}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(held))
    assert train(tmp_path / "run", *MOPO, "--steps", "20", "--resume") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the data set point/random-v0 has changed since the run in" in error
    assert "episodes instead of 2, 300 steps instead of 200" in error
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_without_the_cache_the_model_of_an_offline_agent_is_too(played_here, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tensor_cache, "LEAST_BYTES", 0)
    flags = (*MOPO, "--steps", "2", "--model-steps", "2", "--imitate-steps", "2", "--no-cache")
    assert train(tmp_path / "run", *flags, *RARELY) == 0
    assert not (tmp_path / "cache").exists()


def test_a_data_set_of_other_sizes(datasets, tmp_path, capsys):
    """One that names no environment: nothing but the sizes tells."""
    metadata = datasets / DATASET / "data" / "metadata.json"
    before = metadata.read_text()
    metadata.write_text(
        json.dumps({k: v for k, v in json.loads(before).items() if k != "env_spec"})
    )
    try:
        flags = ("--agent", "mopo", "--dataset", DATASET)
        assert train(tmp_path / "run", *flags, "--env", "Pendulum-v1") == 2
        assert "has 2 observation and 1 action dimensions, Pendulum-v1 has 3 and 1" in (
            capsys.readouterr().err
        )
        assert train(tmp_path / "run", *flags) == 2
        assert "names no environment: name it by --env" in capsys.readouterr().err
    finally:
        metadata.write_text(before)


def test_a_folder_with_another_run_is_left_alone(played_here, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert train(out, *AGENTS["sac"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_another_setting_does_not_resume(played_here, tmp_path, capsys):
    assert train(tmp_path / "run", *AGENTS["sac"]) == 0
    assert train(tmp_path / "run", *AGENTS["sac"], "--resume", "--updates-per-step", "2") == 2
    assert "updates_per_step is 2 now and was 1" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_and_resume_end_as_an_uninterrupted_run(played_here, tmp_path):
    """A real signal to the whole group, the evaluating process included."""
    flags = ["--agent", "mbpo", "--env", ENV, "--start-steps", "110", "--steps", "400"]
    flags += tiny("mbpo")
    flags += ["--model-steps", "6", "--refit-every", "50", "--updates-per-step", "1"]
    flags += ["--rollouts", "10", "--log-every", "20", "--evaluate-every", "100"]
    flags += ["--device", "cpu"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start = "from mbrl_bilevel.scripts.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "train-agent", "--out", str(cut), *flags],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        while not ((cut / "metrics.jsonl").is_file() and len(metrics(cut)) > 6):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        error = process.communicate(timeout=300)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "interrupted by SIGINT at step" in error
    assert "go on with: mbrl-bilevel train-agent" in error
    assert 100 < metrics(cut)[-1]["step"] < 400
    assert train(cut, *flags, "--resume") == 0
    assert train(whole, *flags) == 0
    assert metrics(cut) == metrics(whole)
    one, other = (folder / "policy.safetensors" for folder in (whole, cut))
    assert one.read_bytes() == other.read_bytes()
