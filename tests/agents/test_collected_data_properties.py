"""What is stored is what was stepped, whatever the environment is like."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import ClipAction, ClipReward, RescaleAction, TimeLimit
from hypothesis import given
from hypothesis import strategies as st

from mbrl_bilevel.agents.behaviour import load_policy
from mbrl_bilevel.agents.collect import new_dataset_path, roll_out, write_dataset
from mbrl_bilevel.data.minari import Dataset, load_dataset
from mbrl_bilevel.envs.make import flat_names, make_env
from tests.agents.generated_env import Generated, Habits, habits
from tests.hypothesis_settings import examples

pytestmark = [
    pytest.mark.situation("right"),
    pytest.mark.filterwarnings(
        "ignore"
    ),  # gymnasium's about habits, and of what float32 rounds off
]
ID = "generated/any-v0"


class Seen(gymnasium.Wrapper):
    """Notes copies of what goes in and out: of a reset the observation, of a step all."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.episodes: list[list[Any]] = []

    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        self.episodes.append([np.array(observation)])
        return observation, info

    def step(self, action: Any) -> Any:
        taken = np.array(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.episodes[-1].append(
            (taken, np.array(observation), np.array(reward), bool(terminated), bool(truncated))
        )
        return observation, reward, terminated, truncated, info


@pytest.fixture
def generated() -> Iterator[None]:
    before = Generated.habits
    yield
    Generated.habits, Generated.log = before, []


def collected(env: gymnasium.Env, steps: int, seed: int, folder: str) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", folder)
        policy = load_policy("tests.agents.generated_env:GeneratedEndless-v0", "random")
        rollouts = roll_out(env, policy, steps, seed=seed)
        path = new_dataset_path(ID)
        write_dataset(
            path, ID, rollouts, env, algorithm="random", description="any", command="none"
        )
        assert sorted(p.name for p in Path(folder).iterdir()) == ["generated"]
        return load_dataset(ID)


@examples(30)
@given(
    kind=habits(),
    steps=st.integers(2, 40),
    limit=st.none() | st.integers(1, 12),
    clips=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
def test_what_is_stored_is_what_was_stepped(
    generated: None, kind: Habits, steps: int, limit: int | None, clips: bool, seed: int
) -> None:
    Generated.habits, Generated.log = kind, []
    with TemporaryDirectory() as folder:
        env = make_env("tests.agents.generated_env:GeneratedEndless-v0")
        if limit is not None:
            env = TimeLimit(env, limit)
        if clips:
            env = ClipReward(env, -0.5, 0.75)
        seen = Seen(env)
        dataset = collected(seen, steps, seed, folder)
    data, rows = dataset.transitions, [row for episode in seen.episodes for row in episode[1:]]
    before = [
        episode[i] if i == 0 else episode[i][1]
        for episode in seen.episodes
        for i in range(len(episode) - 1)
    ]
    assert len(data) == len(rows) == steps
    for found, true in {
        data.observation: before,
        data.action: [row[0] for row in rows],
        data.next_observation: [row[1] for row in rows],
        data.reward: [row[2].reshape(()) for row in rows],
    }.items():
        np.testing.assert_array_equal(found.numpy(), np.stack(true).astype(np.float32))
    lengths = [len(episode) - 1 for episode in seen.episodes]
    assert data.episode.tolist() == np.repeat(range(len(lengths)), lengths).tolist()
    assert data.terminated.tolist() == [row[3] for row in rows]
    cut = [row[4] for row in rows]
    cut[-1] = cut[-1] or not rows[-1][3]
    assert data.truncated.tolist() == cut
    for row in rows:
        assert env.action_space.contains(row[0])
    names = flat_names(seen)
    for column, name in enumerate(names or [f"[{i}]" for i in range(data.observation.shape[1])]):
        path, _, index = name.removesuffix("]").rpartition("[")
        said = [entry[2] for entry in Generated.log if entry[0] == "step"]
        true = [arrays[path][int(index)] for arrays in said]
        np.testing.assert_array_equal(
            data.next_observation[:, column].numpy(), np.array(true).astype(np.float32)
        )


@examples(8)
@given(kind=habits(), seed=st.integers(0, 2**31 - 1), bounds=st.sampled_from([(-1, 1), (-0.5, 3)]))
def test_actions_are_stored_as_the_outermost_wrapper_takes_them(
    generated: None, kind: Habits, seed: int, bounds: tuple[float, float]
) -> None:
    """And the environment inside gets them rescaled and clipped."""
    Generated.habits, Generated.log = kind, []
    low, high = map(float, bounds)
    env = ClipAction(
        RescaleAction(make_env("tests.agents.generated_env:GeneratedEndless-v0"), low, high)
    )
    with TemporaryDirectory() as folder:
        data = collected(Seen(env), 12, seed, folder).transitions
    taken = np.stack([entry[1] for entry in Generated.log if entry[0] == "step"])
    outer = np.clip(data.action.numpy(), low, high).astype(np.float64)
    inner_low, inner_high = (np.array(b, np.float64) for b in (kind.low, kind.high))
    inner = inner_low + (outer - low) / (high - low) * (inner_high - inner_low)
    scale = np.abs(inner_low) + np.abs(inner_high)
    assert (np.abs(taken - inner) <= 1e-5 * scale).all()
