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
from mbrl_bilevel.scripts import eval_agent, main

FAST = ("--horizon", "5", "--samples", "16", "--elites", "4", "--iterations", "2")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model", env_id="InvertedPendulum-v5")


def saved_model(folder: Path, obs_dim: int = 4, act_dim: int = 1, **settings: Any) -> Path:
    generator = torch.Generator().manual_seed(0)
    DynamicsModel(obs_dim, act_dim, members=2, hidden=(8,), generator=generator, **settings).save(
        folder
    )
    return folder


def run(*flags: str | Path) -> int:
    return main.run(["eval-agent", *(str(flag) for flag in flags)])


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def in_this_process(play: Any, episodes: int, **_: Any) -> Iterator[tuple[int, Episode]]:
    for index in range(episodes):
        yield index, play(index)


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
    # Each evaluation has a folder of its own beside the model.
    assert [Path(found["results"]) for found in (two, one)] == [
        model / "eval-001",
        model / "eval-002",
    ]
    assert json.loads((model / "eval-001" / "summary.json").read_text()) == two
    config = yaml.safe_load((model / "eval-002" / "config.yaml").read_text())
    assert (config["env"], config["horizon"], config["beta"]) == ("InvertedPendulum-v5", 5, 2.0)


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
    low, high = -20.272305, 3234.3
    score = 100 * (np.mean(returns) - low) / (high - low)
    assert found["normalized_score"] == pytest.approx(score)
    assert (tmp_path / "eval-001" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--episodes", "0"), "--episodes 0"),
        (("--max-steps", "0"), "--max-steps 0"),
        (("--workers", "0"), "--workers 0"),
        (("--seed", "-1"), "--seed -1"),
        (("--horizon", "0"), "horizon 0"),
        (("--samples", "0"), "samples 0"),
        (("--elites", "500"), "only 96 samples"),
        (("--caution", "-1"), "caution -1"),
        (("--env", "Hopper-v5"), "trained for InvertedPendulum-v5, not for Hopper-v5"),
        (("--env", "Hoper-v5"), "did you mean 'Hopper-v5'"),
        (("--env", "CartPole-v1"), "actions"),
        (("--agent", "policy"), "leave --model out"),
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
    refused(("--model", nameless), "does not say its environment", capsys)
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


def test_a_video_without_a_renderer_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    refused(("--model", str(model), "--video"), "libegl1", capsys)


def test_an_interrupt_prints_what_is_finished(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[tuple[int, Episode]]:
        yield 2, Episode(123.5, 10, True, 1.0, 0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(eval_agent, "play_episodes", interrupted)
    assert run("--model", model, "--episodes", "4") == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 of 4 episodes are finished" in captured.err
    assert "123.5" in captured.err


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
