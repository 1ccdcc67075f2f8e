"""What a data set says of its environment decides what is learned and where is acted."""

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
import yaml
from gymnasium.wrappers import ClipAction, NormalizeReward, RescaleAction, TransformReward
from minari.data_collector import EpisodeBuffer

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.tasks import TASKS
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts import eval_agent, train_agent
from mbrl_bilevel.scripts.main import run
from tests.scripts.test_eval_agent import in_this_process
from tests.scripts.test_train_agent import InThisProcess

SMALL = "--hidden 16 --members 2 --steps 20"
MOPO = "train-agent --agent mopo --dataset my/run-v0 --steps 2 --imitate-steps 1 --model-steps 2"
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*precision lowered"),
    pytest.mark.filterwarnings("ignore:.*lie outside the range of the model's"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    monkeypatch.setattr(train_agent, "PolicyEvaluation", InThisProcess)


def record(env: gymnasium.Env, steps: int = 60, episodes: int = 4, **changes: Any) -> None:
    """A data set my/run-v0 of random actions; `changes` replace columns of each episode."""
    env.action_space.seed(0)
    buffers = []
    for i in range(episodes):
        obs, _ = env.reset(seed=i)
        rows: dict[str, list[Any]] = {"observations": [obs]}
        for name in ("actions", "rewards", "terminations", "truncations"):
            rows[name] = []
        for t in range(steps):
            action = env.action_space.sample()
            obs, *rest, _ = env.step(action)
            rest[2] = bool(rest[2] or (t == steps - 1 and not rest[1]))
            for name, value in zip(rows, (obs, action, *rest), strict=True):
                rows[name].append(value)
            if rest[1] or rest[2]:
                break
        found = {name: stacked(values) for name, values in rows.items()}
        found |= {new: found[old] for new, old in changes.items()}
        buffers.append(EpisodeBuffer(**found))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers("my/run-v0", buffers, env=env)


def stacked(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: np.stack([value[key] for value in values]) for key in values[0]}
    return np.array(values)


def command(line: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    """Runs it and returns what it says to the user."""
    assert run(line.split()) == code, capsys.readouterr().err
    said = capsys.readouterr()
    if code:
        assert said.out == ""
        assert len(said.err.strip().splitlines()) == 1
        assert not any(path.name in ("run", "eval-001") for path in Path().rglob("*"))
    return said.err + said.out


def trained() -> DynamicsModel:
    return DynamicsModel.load("run")


def act(capsys: pytest.CaptureFixture[str], flags: str = "") -> dict[str, Any]:
    """The configuration of an evaluation of the model."""
    line = "eval-agent --model run --episodes 1 --max-steps 3 --horizon 2 --samples 4 --elites 2"
    command(f"{line} --iterations 1 {flags}", capsys)
    (config,) = Path("run").glob("eval-*/config.yaml")
    return yaml.safe_load(config.read_text())


@pytest.mark.situation("right")
def test_arguments_of_the_environment_decide_the_reward_that_is_planned_for(capsys) -> None:
    record(gymnasium.make("HalfCheetah-v5", forward_reward_weight=-1.0))
    command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    spec = EnvSpec("HalfCheetah-v5", {"forward_reward_weight": -1.0}, (), 1000)
    assert trained().env_spec == spec
    assert not trained().learn_reward
    assert yaml.safe_load(Path("run/config.yaml").read_text())["environment"] == spec.to_plain()
    assert act(capsys)["environment"] == spec.to_plain()


@pytest.mark.situation("refused")
def test_rewards_of_another_task_are_refused_before_anything_is_written(
    capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = TransformReward(gymnasium.make("HalfCheetah-v5"), lambda r: -r)
    assert env.spec is not None
    plain = gymnasium.spec("HalfCheetah-v5")  # the record does not tell of the wrapper
    monkeypatch.setattr(TransformReward, "spec", property(lambda self: plain))
    record(env)
    for line in (f"train-model --dataset my/run-v0 --out run {SMALL}", f"{MOPO} --out run"):
        said = command(line, capsys, 2)
        assert "correlation -0.9" in said
        assert "240 rows" in said
        assert "sign" in said
        assert "--learn-reward yes" in said
    command(f"train-model --dataset my/run-v0 --out run {SMALL} --learn-reward yes", capsys)
    assert trained().learn_reward


@pytest.mark.situation("warned")
def test_time_limits_stored_as_terminations_are_read_as_truncations(capsys) -> None:
    env = gymnasium.make("HalfCheetah-v5", max_episode_steps=30)
    record(env, terminations="truncations", truncations="terminations")
    said = command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    assert "4 terminations at the time limit" in said
    # of data that the agent and the training of its model both look at
    said = command(f"{MOPO} --out agent", capsys)
    assert said.count("4 terminations at the time limit") == 1


@pytest.mark.situation("right")
def test_actions_are_rescaled_as_where_the_data_were_collected(capsys) -> None:
    record(RescaleAction(gymnasium.make("InvertedPendulum-v5"), -1.0, 1.0), episodes=12)
    command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    config = act(capsys)
    assert config["environment"]["wrappers"] == [
        {"name": "RescaleAction", "kwargs": {"min_action": -1.0, "max_action": 1.0}}
    ]
    line = "eval-agent --model run --env InvertedPendulum-v5 --episodes 1"
    assert run(line.split()) == 2
    assert "RescaleAction(min_action=-1.0" in capsys.readouterr().err


@pytest.mark.situation("right")
@pytest.mark.parametrize(
    ("env_id", "kwargs", "dims"),
    [
        ("Ant-v5", {"include_cfrc_ext_in_observation": False}, 27),
        ("Hopper-v5", {"exclude_current_positions_from_observation": False}, 12),
    ],
)
def test_arguments_that_change_the_observation(
    env_id: str, kwargs: dict[str, Any], dims: int, capsys
) -> None:
    record(gymnasium.make(env_id, **kwargs))
    command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    assert len(trained().observation_names) == dims
    assert trained().observation_names[0] == ("x" if env_id == "Hopper-v5" else "z")
    assert not trained().learn_reward
    assert act(capsys)["environment"]["kwargs"] == kwargs


@pytest.mark.situation("refused")
def test_another_version_is_refused_early_and_taken_by_an_explicit_word(capsys) -> None:
    record(gymnasium.make("HalfCheetah-v5"))
    command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    description = yaml.safe_load(Path("run/model.yaml").read_text())
    description["env_id"] = description["env"]["id"] = "HalfCheetah-v4"
    Path("run/model.yaml").write_text(yaml.safe_dump(description))
    line = "eval-agent --model run --env HalfCheetah-v5 --episodes 1"
    assert run(line.split()) == 2
    assert "trained for HalfCheetah-v4, not for HalfCheetah-v5" in capsys.readouterr().err
    assert not list(Path("run").glob("eval-*"))
    assert act(capsys, "--env HalfCheetah-v5 --other-env")["env"] == "HalfCheetah-v5"


@pytest.mark.situation("right")
def test_gravity_of_the_data_is_where_the_model_is_judged(capsys) -> None:
    record(gymnasium.make("Pendulum-v1", g=2.0))
    command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    assert act(capsys)["environment"]["kwargs"] == {"g": 2.0}
    assert run(["eval-agent", "--model", "run", "--env", "Pendulum-v1", "--episodes", "1"]) == 2
    assert "trained for Pendulum-v1(g=2.0), not for Pendulum-v1" in capsys.readouterr().err


@pytest.mark.situation("refused")
def test_a_wrapper_that_cannot_be_made_again_is_named(capsys) -> None:
    record(NormalizeReward(gymnasium.make("Pendulum-v1")))
    said = command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    assert "NormalizeReward" in said  # a warning
    assert trained().learn_reward
    for line in ("eval-agent --model run", f"{MOPO} --out other"):
        assert run(line.split()) == 2
        assert "NormalizeReward" in capsys.readouterr().err
    assert not Path("other").exists()


@pytest.mark.situation("right")
def test_a_policy_is_evaluated_where_it_was_trained(capsys) -> None:
    record(ClipAction(gymnasium.make("Pendulum-v1", g=2.0, max_episode_steps=10)))
    small = "--members 2 --hidden 8 --policy-hidden 8 --rollouts 5 --episodes 1 --steps 3"
    command(f"{MOPO} {small} --evaluate-every 3 --log-every 3 --out run", capsys)
    assert yaml.safe_load(Path("run/config.yaml").read_text())["environment"]["kwargs"] == {
        "g": 2.0
    }
    line = "eval-agent --agent policy --model run --episodes 1 --workers 1 --json"
    found = json.loads(command(line, capsys).splitlines()[-1])
    assert found["lengths"] == [10]
    assert run(f"{line} --env Pendulum-v1".split()) == 2
    assert "trained for Pendulum-v1(g=2.0) in ClipAction()" in capsys.readouterr().err


@pytest.fixture
def goal() -> Iterator[str]:
    """An environment with Dict observations and its task, forgotten in the end."""
    module = importlib.import_module("tests.situations.goal_environment")
    yield f"{module.__name__}:Goal-v0"
    TASKS.pop("Goal-v0", None)
    gymnasium.registry.pop("Goal-v0", None)
    sys.modules.pop(module.__name__, None)


@pytest.mark.situation("right")
def test_dict_observations_keep_their_names_and_are_acted_on(
    goal: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = TASKS["Goal-v0"].observation_names
    record(gymnasium.make("Goal-v0"))
    with monkeypatch.context() as patch:
        patch.delitem(TASKS, "Goal-v0")
        command(f"train-model --dataset my/run-v0 --out nameless {SMALL}", capsys)
    nameless = DynamicsModel.load("nameless")
    assert nameless.observation_names == names
    assert nameless.learn_reward
    command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    assert not trained().learn_reward
    assert act(capsys, f"--env {goal}")["env"] == goal


@pytest.mark.situation("refused")
def test_a_model_whose_observations_stand_in_another_order_is_refused(goal: str, capsys) -> None:
    record(gymnasium.make("Goal-v0"))
    command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    description = yaml.safe_load(Path("run/model.yaml").read_text())
    description["observation_names"].reverse()
    Path("run/model.yaml").write_text(yaml.safe_dump(description))
    assert run(f"eval-agent --model run --env {goal}".split()) == 2
    assert "in the order observation[1], observation[0]" in capsys.readouterr().err


@pytest.mark.situation("refused")
def test_an_online_agent_is_stopped_before_it_learns_by_another_reward(
    goal: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(TASKS["Goal-v0"], reward=lambda obs, act, next_obs: next_obs[..., 4])
    monkeypatch.setitem(TASKS, "Goal-v0", task)
    flags = f"--env {goal} --start-steps 60 --steps 62 --members 2 --hidden 8 --model-steps 2"
    for agent in ("mbpo", "pets"):
        assert run(f"train-agent --agent {agent} {flags} --out {agent}".split()) == 2
        said = capsys.readouterr().err
        assert "the random steps in the environment hold rewards that are not those" in said
        assert "over 60 rows" in said
        assert not Path(agent).exists()
    flags += " --rollouts 5 --policy-hidden 8 --evaluate-every 62 --episodes 1"
    command(f"train-agent --agent mbpo {flags} --learn-reward yes --out run", capsys)
    assert trained().learn_reward
    assert trained().observation_names == task.observation_names


@pytest.mark.situation("refused")
def test_humanoid_trains_with_its_reward_and_is_not_acted_in_without_a_task(capsys) -> None:
    record(gymnasium.make("Humanoid-v5"), episodes=8)
    command(f"train-model --dataset my/run-v0 --out run {SMALL}", capsys)
    assert len(trained().target_names) == 349
    assert run(["eval-agent", "--model", "run"]) == 2
    assert "no task for environment 'Humanoid-v5'" in capsys.readouterr().err
