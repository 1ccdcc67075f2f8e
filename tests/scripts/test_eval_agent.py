import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import yaml

from mbrl_bilevel.agents.behaviour import load_policy
from mbrl_bilevel.agents.episode import Episode
from mbrl_bilevel.agents.parallel import WorkerDied, episode_seeds
from mbrl_bilevel.envs import video
from mbrl_bilevel.envs.tasks import TASKS
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.scripts import eval_agent, main

FAST = ("--horizon", "5", "--samples", "16", "--elites", "4", "--iterations", "2")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model", env_id="InvertedPendulum-v5")


def saved_model(folder: Path, obs_dim: int = 4, act_dim: int = 1, **settings: Any) -> Path:
    generator = torch.Generator().manual_seed(0)
    DynamicsModel(
        obs_dim, act_dim, ModelSettings(members=2, hidden=(8,)), generator=generator, **settings
    ).save(folder)
    return folder


def run(*flags: str | Path) -> int:
    return main.run(["eval-agent", *(str(flag) for flag in flags)])


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def in_this_process(play: Any, episodes: int, **_: Any) -> Iterator[tuple[int, Episode]]:
    for index in range(episodes):
        yield index, play(index, lambda *_: None)


def test_results_depend_on_the_seed_and_not_on_the_workers(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes at once give what a plain loop in this process gives, and leave a trace."""
    flags = ["--episodes", "2", "--max-steps", "8", "--seed", "3", "--workers", "2"]
    assert run("--model", model, *FAST, "--json", *flags) == 0
    two = figures(capsys)
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    assert run("--model", model, *FAST, "--json", *flags) == 0
    one = figures(capsys)
    for key in ("returns", "lengths", "terminated", "mean_return", "non_finite_sequences"):
        assert one[key] == two[key]
    assert one["env"] == "InvertedPendulum-v5"
    assert one["normalized_score"] is None
    assert one["planning_ms_per_step"] > 0
    assert 0 < one["simulator_share"] < 1
    assert one["seed"] == 3
    assert one["complete"]
    assert one["interval"] == two["interval"]
    assert min(one["returns"]) <= one["interval"][0] <= one["mean_return"] <= one["interval"][1]
    assert one["iqm"] == one["mean_return"]  # of two episodes
    # Each evaluation has a folder of its own beside the model.
    assert [Path(found["results"]) for found in (two, one)] == [
        model / "eval-001",
        model / "eval-002",
    ]
    assert json.loads((model / "eval-001" / "summary.json").read_text()) == two
    config = yaml.safe_load((model / "eval-002" / "config.yaml").read_text())
    assert (config["env"], config["horizon"], config["beta"]) == ("InvertedPendulum-v5", 5, 0.0)


def test_a_shipped_policy_gets_the_returns_of_a_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    flags = ("--agent", "policy", "--policy", "medium", "--env", "Hopper-v5", "--out", tmp_path)
    assert run(*flags, "--episodes", "3", "--max-steps", "200", "--json") == 0
    found = figures(capsys)
    policy, env, returns = load_policy("Hopper-v5", "medium"), gymnasium.make("Hopper-v5"), []
    for index in range(3):
        obs, _ = env.reset(seed=episode_seeds(0, index)[0])
        total = 0.0
        for _ in range(200):
            obs, reward, terminated, _, _ = env.step(policy(obs[None])[0])
            total += float(reward)
            if terminated:
                break
        returns.append(total)
    assert found["returns"] == pytest.approx(returns)
    assert (tmp_path / "eval-001" / "summary.json").is_file()


@pytest.mark.situation("right")
@pytest.mark.parametrize(("max_steps", "scored"), [("999", False), ("1000", True)])
def test_shortened_episodes_have_no_normalised_score(
    max_steps: str,
    scored: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Reference scores are of 1,000 steps; Hopper acting at random falls long before."""
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    flags = ("--agent", "policy", "--policy", "random", "--env", "Hopper-v5", "--out", tmp_path)
    assert run(*flags, "--episodes", "2", "--max-steps", max_steps, "--json") == 0
    found = figures(capsys)
    low, high = -20.272305, 3234.3
    score = 100 * (found["mean_return"] - low) / (high - low)
    assert found["normalized_score"] == (pytest.approx(score) if scored else None)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--episodes", "0"), "--episodes 0"),
        (("--max-steps", "0"), "--max-steps 0"),
        (("--workers", "0"), "--workers 0"),
        (("--seed", "-1"), "--seed -1"),
        (("--horizon", "0"), "--horizon 0"),
        (("--samples", "0"), "samples 0"),
        (("--elites", "500"), "only 64 samples"),
        (("--iterations", "0"), "iterations 0"),
        (("--threads", "0"), "--threads 0"),
        (("--action-repeat", "0"), "--action-repeat 0"),
        (("--particles", "3"), "particles 3"),
        (("--discount", "2"), "discount 2"),
        (("--planner", "cem", "--beta", "1"), "--beta 1.0 is no setting of cem"),
        (("--planner", "cem", "icem", "--temperature", "1"), "temperature 1.0 is no setting"),
        (("--planner", "cem", "cem"), "--planner names cem twice"),
        (("--data-support-penalty", "-1"), "--data-support-penalty -1"),
        (("--planner", "sac"), "no planner 'sac': choose one of icem, cem"),
        (("--survival", "1"), "--survival is no flag of eval-agent"),
        (("--horizn", "1"), "did you mean --horizon?"),
        (("--agent", "policy", "--horizon", "3"), "--horizon 3 is for planning"),
        (("--env", "Hopper-v5"), "trained for InvertedPendulum-v5, not for Hopper-v5"),
        (("--env", "Hoper-v5"), "did you mean 'Hopper-v5'"),
        (("--env", "CartPole-v1"), "actions"),
        (("--agent", "policy"), "holds no policy (policy.safetensors)"),
        (("--prior", "no/where"), "--prior no/where is no run folder of train-agent"),
        (("--prior", "random"), "random actions have no mean"),
        (("--prior", "medium", "--horizon", "0"), "--horizon 0"),
        (("--terminal-value", "critic"), "--terminal-value critic: name the run"),
        (("--out", "/proc/here"), "cannot be written"),
    ],
)
def test_bad_flags(
    model: Path, flags: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(("--model", str(model), *flags), words, capsys)
    assert not list(model.glob("eval-*"))


def refused(flags: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*flags) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert words in captured.err


def test_bad_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing, nameless = tmp_path / "nothing", str(saved_model(tmp_path / "nameless"))
    refused(("--model", str(nothing)), "holds no model", capsys)
    nothing.mkdir()
    refused(("--model", str(nothing)), "holds no model", capsys)
    refused((), "--agent mpc needs a model", capsys)
    refused(("--model", nameless), "names no environment", capsys)
    refused(("--model", nameless, "--env", "Hopper-v5"), "4 observation and 1 action", capsys)
    blind = replace(TASKS["InvertedPendulum-v5"], reward=None)
    monkeypatch.setitem(TASKS, blind.env_id, blind)
    refused(("--model", nameless, "--env", blind.env_id), "no known reward function", capsys)
    refused(("--agent", "policy"), "--env", capsys)
    refused(("--agent", "policy", "--env", "Hopper-v5", "--policy", "no"), "no policy 'no'", capsys)
    file = tmp_path / "file"
    file.touch()
    flags = ("--agent", "policy", "--env", "Hopper-v5", "--out", str(file))
    refused(flags, "cannot be written", capsys)


@pytest.mark.situation("warned")
def test_a_model_that_names_no_environment_is_taken_on_the_users_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    nameless = saved_model(tmp_path / "nameless")
    flags = ("--env", "InvertedPendulum-v5", "--episodes", "1", "--max-steps", "2")
    assert run("--model", nameless, *flags, "--planner", "random_shooting") == 0
    assert "names no environment and is taken for one of" in capsys.readouterr().err


def test_a_video_without_a_renderer_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    refused(("--model", str(model), "--video"), "libegl1", capsys)
    assert not list(model.glob("eval-*"))


def test_a_video_without_pygame_is_refused_where_it_draws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    flags = ("--model", "simulator", "--env", "Pendulum-v1", "--video")
    refused(flags, "Pendulum-v1 cannot be drawn here", capsys)


def test_an_interrupt_prints_what_is_finished(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[tuple[int, Episode]]:
        yield 2, Episode(np.full(10, 12.35), True, 1.0, 0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(eval_agent, "play_episodes", interrupted)
    assert run("--model", model, "--episodes", "4") == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 of 4 episodes are finished" in captured.err
    assert "123.5" in captured.err
    found = json.loads((model / "eval-001" / "summary.json").read_text())
    assert not found["complete"]
    assert (found["returns"], found["episodes"]) == ([pytest.approx(123.5)], [2])


def test_a_dead_worker_is_one_sentence_and_exit_code_1(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: Any, **__: Any) -> Iterator[tuple[int, Episode]]:
        raise WorkerDied("a process died")
        yield

    monkeypatch.setattr(eval_agent, "play_episodes", dying)
    with pytest.raises(SystemExit) as exit_:
        run("--model", model)
    assert exit_.value.code == "mbrl-bilevel eval-agent: a process died"


def test_bad_company(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is wrong with several models, or with the simulator in place of one."""
    monkeypatch.chdir(tmp_path)
    hopper = str(saved_model(tmp_path / "hopper", 11, 3, env_id="Hopper-v5"))
    here = str(model)
    refused(("--model", here, here), "twice", capsys)
    refused(("--model", here, f"{model}/../model"), "twice", capsys)
    twice = ("--model", "simulator", "simulator", "--env", "Hopper-v5")
    refused(twice, "simulator twice", capsys)
    refused(("--model", here, hopper), "trained for Hopper-v5", capsys)
    refused(("--model", here, str(tmp_path)), "holds no model", capsys)
    refused(("--model", "simulator"), "name the environment by --env", capsys)
    oracle = ("--model", "simulator", "--env")
    refused((*oracle, "Humanoid-v5"), "no task for environment 'Humanoid-v5'", capsys)
    penalty = ("InvertedPendulum-v5", "--data-support-penalty", "1")
    refused((*oracle, *penalty), "--data-support-penalty 1.0 is no setting", capsys)
    unknown = replace(TASKS["Hopper-v5"], env_id="HumanoidStandup-v5")
    monkeypatch.setitem(TASKS, unknown.env_id, unknown)
    refused((*oracle, unknown.env_id), "the simulator cannot look ahead", capsys)
    assert not list(tmp_path.rglob("eval-*"))


def test_agents_side_by_side_act_as_they_do_alone(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever runs beside it, an agent's episodes are the same, and the same starts are paired."""
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    monkeypatch.chdir(model.parent)
    DynamicsModel.load(model).save(model.parent / "twin")
    flags = (*FAST, "--episodes", "3", "--max-steps", "8", "--json")
    assert run("--model", "model", "twin", "simulator", "--planner", "icem", *flags) == 0
    found = figures(capsys)
    assert [one["name"] for one in found["agents"]] == ["model", "twin", "simulator"]
    first, twin, oracle = found["agents"]
    assert first["returns"] == twin["returns"]
    assert twin["difference"]["mean_interval"] == [0, 0]
    change = np.subtract(oracle["returns"], first["returns"])
    assert oracle["difference"]["mean"] == pytest.approx(change.mean())
    low, high = oracle["difference"]["mean_interval"]
    assert change.min() <= low <= high <= change.max()
    assert Path(found["figure"]).is_file()
    # As if each had been evaluated alone: in its own folder, and from the same starts.
    copy = json.loads((model / "eval-001" / "summary.json").read_text())
    assert run("--model", "model", *flags) == 0
    alone = figures(capsys)
    assert copy["returns"] == alone["returns"] == first["returns"]
    assert copy.keys() <= alone.keys()
    configs = [
        yaml.safe_load((model / name / "config.yaml").read_text())
        for name in ("eval-001", "eval-002")
    ]
    assert configs[0] == configs[1]


def test_the_oracle_balances_the_pole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planning in the real physics earns the most there is, 1 a step, where random actions fall."""
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    flags = ("--env", "InvertedPendulum-v5", "--episodes", "1", "--max-steps", "40", "--json")
    sizes = ("--horizon", "15", "--samples", "24", "--elites", "4", "--out", tmp_path)
    assert run("--model", "simulator", *flags, *sizes) == 0
    oracle = figures(capsys)
    assert oracle["returns"] == [40.0]
    assert oracle["simulator_share"] < 0.1
    random = ("--agent", "policy", "--policy", "random", "--out", tmp_path)
    assert run(*random, *flags) == 0
    assert figures(capsys)["returns"][0] < 40


def test_an_interrupt_keeps_what_several_agents_have_finished(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of agents in turn, 0, 2, 4 are the first one's episodes 0, 1, 2; only common ones pair."""

    def interrupted(*_: Any, **__: Any) -> Iterator[tuple[int, Episode]]:
        for index, value in ((0, 1.0), (3, 7.0), (2, 4.0), (4, 100.0)):
            yield index, Episode(np.array([value]), True, 1.0, 0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(eval_agent, "play_episodes", interrupted)
    flags = ("--planner", "icem", "cem", "--episodes", "4", "--out", tmp_path / "out")
    assert run("--model", model, *flags) == 130
    assert "4 of 8 episodes are finished" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "eval-001" / "summary.json").read_text())
    assert not found["complete"]
    assert [one["returns"] for one in found["agents"]] == [[1.0, 4.0, 100.0], [7.0]]
    assert found["agents"][1]["difference"]["mean"] == pytest.approx(3)
    assert not list(model.glob("eval-*"))


@pytest.mark.slow
def test_a_video_shows_the_first_episode(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if not any(map(video._renders, video.HEADLESS)):
        pytest.skip("nothing renders here: libegl1 and libosmesa6 are missing")
    flags = ("--episodes", "1", "--max-steps", "4", "--video", "--json")
    assert run("--model", model, *FAST, *flags) == 0
    found = figures(capsys)
    frames = imageio.mimread(found["video"])
    assert len(frames) == found["lengths"][0] + 1
    assert all(np.std(frame) > 5 for frame in frames)  # something is to be seen


@pytest.mark.slow
def test_ctrl_c_ends_the_command_at_once(model: Path) -> None:
    command = [sys.executable, "-c", "from mbrl_bilevel.scripts.main import main; main()"]
    flags = ["eval-agent", "--agent", "policy", "--env", "HalfCheetah-v5", "--policy", "random"]
    process = subprocess.Popen(
        [*command, *flags, "--episodes", "100000", "--out", str(model)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    read = b""
    while b"finished" not in read:  # the progress bar, once an episode is
        read += os.read(process.stderr.fileno(), 4096)
    os.killpg(process.pid, signal.SIGINT)
    started = time.perf_counter()
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert b"of 100000 episodes are finished" in rest
    assert b"Traceback" not in rest
    assert time.perf_counter() - started < 30
