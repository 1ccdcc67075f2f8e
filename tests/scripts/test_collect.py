"""`collect` makes sound Minari data sets, refuses bad input and leaves nothing half-written."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest

from mbrl_bilevel.agents import collect as collecting
from mbrl_bilevel.agents import data_collection
from mbrl_bilevel.agents.behaviour import load_policy
from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts import collect as collect_command
from mbrl_bilevel.scripts import main
from mbrl_bilevel.training.folder_lock import FolderLock


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


def collect(dataset: str, *flags: str, env: str = "Hopper-v5", policy: str = "simple") -> int:
    arguments = ["--env", env, "--policy", policy, "--dataset", dataset, "--json", *flags]
    return main.run(["collect", *arguments])


def content(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).digest()
        for file in root.rglob("*")
        if file.is_file()
    }


def test_round_trip(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert collect("my/random-v0", "--steps", "500", policy="random") == 0
        dataset = minari.load_dataset("my/random-v0")
        env = dataset.recover_environment()
    assert env.spec is not None
    assert env.spec.id == "Hopper-v5"
    captured = capsys.readouterr()
    figures = json.loads(captured.out.splitlines()[-1])
    assert str(root / "my/random-v0") in captured.err.splitlines()[0]
    assert "mbrl-bilevel train-model --dataset my/random-v0" in captured.err
    episodes = list(dataset.iterate_episodes())
    assert figures["episodes"] == len(episodes) == dataset.total_episodes > 10
    assert figures["steps"] == dataset.total_steps == 500
    assert figures["dataset"] == "my/random-v0"
    complete = [e.rewards.sum() for e in episodes[:-1]]
    assert figures["mean_return"] == pytest.approx(np.mean(complete), rel=0.1)

    assert all(e.terminations[-1] for e in episodes[:-1])
    assert not any(e.truncations.any() for e in episodes[:-1])
    assert episodes[-1].terminations[-1] or episodes[-1].truncations[-1]
    ours = load_dataset("my/random-v0").transitions
    np.testing.assert_array_equal(ours.action, np.concatenate([e.actions for e in episodes]))
    for name, columns in (
        ("observation", [e.observations[:-1] for e in episodes]),
        ("next_observation", [e.observations[1:] for e in episodes]),
        ("reward", [e.rewards for e in episodes]),
    ):
        expected = np.concatenate(columns).astype(np.float32)
        np.testing.assert_array_equal(getattr(ours, name), expected)
    np.testing.assert_array_equal(
        ours.terminated, np.concatenate([e.terminations for e in episodes])
    )
    np.testing.assert_array_equal(ours.truncated, np.concatenate([e.truncations for e in episodes]))


def test_every_transition_is_one_of_the_simulator(root: Path) -> None:
    """Replaying the actions from each episode's recorded seed gives the same observations."""
    assert collect("my/replay-v0", "--steps", "300") == 0
    dataset = minari.load_dataset("my/replay-v0")
    env = dataset.recover_environment()
    seeds = [m["seed"] for m in dataset.storage.get_episode_metadata(dataset.episode_indices)]
    for seed, episode in zip(seeds, dataset.iterate_episodes(), strict=True):
        observation, _ = env.reset(seed=seed)
        for t, action in enumerate(episode.actions):
            np.testing.assert_array_equal(observation, episode.observations[t])
            observation, reward, terminated, _, _ = env.step(action)
            assert reward == episode.rewards[t]
            assert terminated == episode.terminations[t]
        np.testing.assert_array_equal(observation, episode.observations[-1])


def test_the_last_episode_is_cut_to_exactly_n_steps(root: Path) -> None:
    assert collect("my/cut-v0", "--steps", "7", env="HalfCheetah-v5") == 0
    (episode,) = minari.load_dataset("my/cut-v0").iterate_episodes()
    assert len(episode.rewards) == 7
    assert episode.truncations.tolist() == [False] * 6 + [True]
    assert not episode.terminations.any()


def test_metadata_are_filled_in(root: Path) -> None:
    assert collect("my/meta-v0", "--steps", "50", "--deterministic", "--seed", "4") == 0
    dataset = minari.load_dataset("my/meta-v0")
    metadata = dataset.storage.metadata
    assert metadata["ref_min_score"] == -20.272305
    assert metadata["ref_max_score"] == 3234.3
    assert metadata["algorithm_name"] == "soft actor-critic, policy 'simple'"
    assert "deterministic actions, seed 4" in metadata["description"]
    assert "--seed 4 --deterministic" in metadata["code_permalink"]
    assert metadata["author"]
    assert minari.get_normalized_score(dataset, np.array(3234.3)) == 1.0
    assert "my/meta-v0" in minari.list_local_datasets()


def test_the_same_seed_gives_the_same_file(root: Path) -> None:
    for name, seed in (("first", "1"), ("second", "1"), ("third", "2")):
        assert collect(f"my/{name}-v0", "--steps", "200", "--seed", seed) == 0
    files = content(root)
    first, second, third = (
        files[f"my/{name}-v0/data/main_data.hdf5"] for name in ("first", "second", "third")
    )
    assert first == second != third


@pytest.mark.parametrize(
    ("dataset", "flags", "env", "policy", "message"),
    [
        ("my/a-v0", ["--steps", "1"], "Hopper-v5", "simple", "--steps 1: choose at least 2"),
        ("my/a-v0", ["--steps", "-5"], "Hopper-v5", "simple", "--steps -5: choose at least 2"),
        ("my/a-v0", ["--steps", "9", "--seed", "-1"], "Hopper-v5", "simple", "--seed -1"),
        ("my/a-v0", ["--steps", "9"], "Hoppper-v5", "simple", "did you mean"),
        ("my/a-v0", ["--steps", "9"], "Walker2d-v5", "simple", "choose one of: random"),
        ("my/a-v0", ["--steps", "9"], "CartPole-v1", "random", "actions Discrete"),
        ("../a-v0", ["--steps", "9"], "Hopper-v5", "simple", "no data set id"),
        ("/tmp/a-v0", ["--steps", "9"], "Hopper-v5", "simple", "no data set id"),
        ("my/a", ["--steps", "9"], "Hopper-v5", "simple", "no data set id"),
        ("", ["--steps", "9"], "Hopper-v5", "simple", "an empty value"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    dataset: str,
    flags: list[str],
    env: str,
    policy: str,
    message: str,
) -> None:
    assert collect(dataset, *flags, env=env, policy=policy) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("mbrl-bilevel collect: ")
    assert message in last
    assert content(root) == {}


def test_an_existing_data_set_is_kept_unless_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect("my/a-v0", "--steps", "30") == 0
    before = content(root)
    assert collect("my/a-v0", "--steps", "40") == 2
    assert "already exists" in capsys.readouterr().err
    assert content(root) == before
    assert collect("my/a-v0", "--steps", "40", "--overwrite") == 0
    assert len(load_dataset("my/a-v0").transitions) == 40
    assert {path.name for path in root.iterdir()} == {"my"}


def test_a_namespace_is_never_overwritten(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect("my-v0/a-v0", "--steps", "30") == 0
    before = content(root)
    assert collect("my-v0", "--steps", "30", "--overwrite") == 2
    assert collect("my-v0/a-v0/b-v0", "--steps", "30", "--overwrite") == 2
    assert "would lie inside the data set" in capsys.readouterr().err
    assert content(root) == before


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_the_old_data_set_survives_a_failed_write(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    assert collect("my/a-v0", "--steps", "30") == 0
    before = content(root)

    def fail(new: Path, path: Path) -> None:
        raise error

    monkeypatch.setattr(collecting, "exchange", fail)
    code = collect("my/a-v0", "--steps", "40", "--overwrite")
    assert code == (2 if isinstance(error, OSError) else 130)
    assert content(root) == before


def test_what_a_killed_process_left_aside_is_removed_and_what_one_is_writing_is_not(
    root: Path,
) -> None:
    for name in (".collect-dead", ".collect-alive"):
        (root / name / "my").mkdir(parents=True)
    lock = FolderLock(root / ".collect-alive")
    assert collect("my/a-v0", "--steps", "30") == 0
    assert {path.name for path in root.iterdir()} == {"my", ".collect-alive"}
    lock.release()


def test_a_data_set_that_came_to_stand_there_meanwhile_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect("my/a-v0", "--steps", "30") == 0
    before = content(root)
    for module in (collect_command, data_collection):
        monkeypatch.setattr(module, "new_dataset_path", lambda name, overwrite: root / name)
    assert collect("my/a-v0", "--steps", "40") == 2
    assert "has meanwhile come to stand" in capsys.readouterr().err
    assert content(root) == before


def test_ctrl_c_leaves_nothing(root: Path) -> None:
    program = "from mbrl_bilevel.scripts.main import main; main()"
    command = [sys.executable, "-c", program, "collect", "--env", "Hopper-v5", "--policy", "simple"]
    command += ["--steps", "100000000", "--dataset", "my/long-v0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "collecting" not in line and line:
            line = process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert out == ""
    assert content(root) == {}
    assert not any(root.iterdir())


@pytest.mark.situation("refused")
def test_a_wrapper_that_no_data_set_holds_is_refused_in_a_sentence(root: Path) -> None:
    """The library takes environments in wrappers, which gymnasium's JSON has to describe."""
    env = make_env("Pendulum-v1")
    rollouts = collecting.roll_out(env, load_policy("Pendulum-v1", "random"), 9, seed=0)
    env = gymnasium.wrappers.RescaleAction(env, np.float32([-1]), np.float32([1]))
    about = {"algorithm": "random", "description": "any", "command": "none"}
    root.mkdir()
    with pytest.raises(InputError, match=r"cannot be written to a data set .*wrappers"):
        collecting.write_dataset(root / "my/a-v0", "my/a-v0", rollouts, env, **about)
    assert not list(root.iterdir())


def test_ctrl_c_counts_even_where_a_library_swallows_it() -> None:
    class Swallowing(gymnasium.Wrapper):
        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            with contextlib.suppress(BaseException):
                signal.raise_signal(signal.SIGINT)
            return super().step(action)

    env = Swallowing(make_env("Hopper-v5"))
    with pytest.raises(KeyboardInterrupt, match="interrupted by SIGINT"):
        collecting.roll_out(env, load_policy("Hopper-v5", "simple"), 100, seed=0)


@pytest.mark.situation("refused")
def test_a_home_that_cannot_be_made_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a user without one, or of a service."""
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert collect("my/new-v0", "--steps", "9") == 2
    assert "point MINARI_DATASETS_PATH to a folder" in capsys.readouterr().err
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "own"))
    assert collect("my/new-v0", "--steps", "9") == 0


@pytest.mark.slow
@pytest.mark.situation("right")
def test_three_at_once_into_one_folder_are_all_written(root: Path) -> None:
    line = "import sys; from mbrl_bilevel.scripts.main import run; sys.exit(run(sys.argv[1:]))"
    flags = ("--env", "Pendulum-v1", "--policy", "random", "--steps", "200", "--dataset")
    names = [f"at-once/number{number}-v0" for number in range(3)]
    running = [
        subprocess.Popen([sys.executable, "-c", line, "collect", *flags, name]) for name in names
    ]
    assert [process.wait(timeout=300) for process in running] == [0, 0, 0]
    assert [len(load_dataset(name).transitions) for name in names] == [200] * 3
