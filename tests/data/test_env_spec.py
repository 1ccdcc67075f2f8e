"""What is on record of an environment: read from gymnasium's description, kept as plain data."""

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml
from gymnasium.wrappers import ClipAction, RescaleAction, TimeLimit

from mbrl_bilevel.data.env_spec import EnvSpec, WrapperSpec
from mbrl_bilevel.files import read_yaml


def of(env: gymnasium.Env) -> EnvSpec:
    assert env.spec is not None
    return EnvSpec.from_gymnasium(env.spec.to_json())


def test_everything_that_gymnasium_says_of_an_environment_is_kept() -> None:
    bare = gymnasium.make("Pendulum-v1", g=2.0, render_mode="rgb_array", max_episode_steps=50)
    env = TimeLimit(ClipAction(RescaleAction(bare, -1.0, 1.0)), 20)
    assert of(env) == EnvSpec(
        "Pendulum-v1",
        {"g": 2.0},
        (WrapperSpec("RescaleAction", {"min_action": -1.0, "max_action": 1.0}),
         WrapperSpec("ClipAction")),
        20,
    )  # fmt: skip
    assert of(gymnasium.make("Pendulum-v1", max_episode_steps=-1)).max_episode_steps == -1


def test_sequences_and_arrays_that_say_the_same_are_equal() -> None:
    given: list[Any] = [(0.7, float("inf")), [0.7, float("inf")], np.array([0.7, np.inf])]
    assert len({json.dumps(EnvSpec("A-v0", {"r": r}).to_plain()) for r in given}) == 1
    assert EnvSpec("A-v0", {"r": given[0]}) == EnvSpec("A-v0", {"r": given[2]})


def test_a_spec_comes_back_from_yaml_and_json(tmp_path) -> None:
    shared = [0.2, float("inf")]
    spec = EnvSpec(
        "my_module:MyCart-v0",
        {"a": shared, "b": shared, "c": {"d": None, "e": [[1, 2], [3, "x"]]}, "f": True},
        (WrapperSpec("my_module:Mine", None), WrapperSpec("ClipAction")),
        7,
    )
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec.to_plain()))
    assert EnvSpec.from_plain(read_yaml(path)) == spec
    assert EnvSpec.from_plain(json.loads(json.dumps(spec.to_plain()))) == spec
    assert spec.name == "MyCart-v0"


def test_a_wrapper_of_ones_own_is_not_taken_for_gymnasiums() -> None:
    wrapper = {"name": "ClipAction", "entry_point": "os:abort", "kwargs": {}}
    text = json.dumps({"id": "A-v0", "additional_wrappers": [wrapper]})
    assert EnvSpec.from_gymnasium(text).wrappers == (WrapperSpec("os:abort"),)


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    "change",
    [
        {"id": "A\x1b[2J"},
        {"kwargs": [1]},
        {"kwargs": {"a\n": 1}},
        {"kwargs": {"a": "\x1b[2J"}},
        {"kwargs": {"a": float("nan")}},
        {"kwargs": {"a": [[[[[[1]]]]]]}},
        {"kwargs": {"a": list(range(20_000))}},
        {"kwargs": {str(i): [0] * 5_000 for i in range(3)}},
        {"wrappers": "ClipAction"},
        {"wrappers": [{"name": "ClipAction"}]},
        {"wrappers": [{"name": "a\n", "kwargs": {}}]},
        {"max_episode_steps": 0},
        {"max_episode_steps": 10.0},
        {"max_episode_steps": True},
        {"surprise": 1},
    ],
)
def test_what_no_environment_says_of_itself_is_refused(change: dict[str, Any]) -> None:
    plain = EnvSpec("A-v0").to_plain() | change
    with pytest.raises(ValueError, match=r"^[^\n]{1,200}$"):
        EnvSpec.from_plain(plain)
