"""What make_env refuses, and how quiet it is."""

from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium import spaces

from mbrl_bilevel.envs.make import make_env, quiet_mujoco
from mbrl_bilevel.errors import InputError

DEPRECATED = '<mujoco><compiler settotalmass="3"/><worldbody/></mujoco>'


def warn_and_stop() -> None:
    with quiet_mujoco():
        warn("compiler attribute 'settotalmass' is deprecated and will be removed")
        warn("something else")
        raise RuntimeError("stop")


def warn(message: str) -> None:
    handler = mujoco.get_mju_user_warning()
    assert handler is not None
    handler(message)


class Odd(gymnasium.Env):
    """An environment of any spaces."""

    def __init__(self, observation: spaces.Space, action: spaces.Space) -> None:
        self.observation_space, self.action_space = observation, action


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("gymnasium.registry", dict(gymnasium.registry))
    monkeypatch.setattr("gymnasium.envs.registration.registry", gymnasium.registry)
    gymnasium.register(
        "Odd-v0", entry_point=lambda **spaces: Odd(**spaces), disable_env_checker=True
    )
    return "Odd-v0"


def box(*shape: int) -> spaces.Box:
    return spaces.Box(-1, 1, shape)


def test_an_environment_is_made_with_its_arguments() -> None:
    env = make_env("Hopper-v5", healthy_reward=7.0)
    assert env.spec is not None
    assert env.spec.id == "Hopper-v5"
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.zeros(3, dtype=np.float32))
    assert info["reward_survive"] == 7.0
    env.close()


def test_the_deprecation_is_silent_and_leaves_no_log(
    capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_env("HalfCheetah-v5").close()
    assert "settotalmass" not in "".join(capfd.readouterr())
    assert list(tmp_path.iterdir()) == []
    assert mujoco.get_mju_user_warning() is None
    mujoco.MjModel.from_xml_string(DEPRECATED)  # so the silence above proves something
    assert "settotalmass" in "".join(capfd.readouterr())


def test_other_warnings_still_come_through(capfd: pytest.CaptureFixture) -> None:
    with quiet_mujoco():
        mujoco.MjModel.from_xml_string(DEPRECATED)
        warn("the mass is negative")
    assert "".join(capfd.readouterr()) == "mujoco: the mass is negative\n"


def test_a_handler_set_before_hears_the_rest_and_is_put_back() -> None:
    heard: list[str] = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        with pytest.raises(RuntimeError, match="stop"):
            warn_and_stop()
        warn("after")
    finally:
        mujoco.set_mju_user_warning(None)
    assert heard == ["something else", "after"]


@pytest.mark.parametrize("env_id", ["Hoper-v5", "Hopper-v77", "hopper-v5"])
def test_an_unknown_id_names_close_ones(env_id: str) -> None:
    with pytest.raises(InputError, match=f"'{env_id}'.*did you mean.*'Hopper-v5'"):
        make_env(env_id)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "words"),
    [
        ("Qqqqqqqqqqqqqq-v0", {}, "unknown environment.*pprint_registry"),
        ("not an id", {}, "'not an id' cannot be made"),
        ("no_such_module:Hopper-v5", {}, "no_such_module"),
        ("Hopper-v5", {"nonsense": 3}, "'Hopper-v5' does not take.*nonsense"),
        ("Hopper-v5", {"xml_file": "nowhere.xml"}, "nowhere.xml"),
        ("CartPole-v1", {}, r"actions Discrete\(2\).*continuous"),
    ],
)
def test_what_cannot_be_made_is_bad_input(env_id: str, kwargs: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_env(env_id, **kwargs)


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (box(84, 84, 3), box(2), r"image observations \[84, 84, 3\].*flat"),
        (spaces.Dict({"a": box(2, 2)}), box(2), "observations Dict.*flat"),
        (spaces.Dict({"a": spaces.Discrete(3)}), box(2), "observations Dict.*flat"),
        (spaces.Discrete(4), box(2), "observations Discrete.*flat"),
        (box(), box(2), "observations Box.*flat"),
        (box(3), spaces.MultiBinary(2), "actions MultiBinary.*flat"),
        (box(3), box(2, 2), "actions Box.*flat"),
        (box(3), box(0), "actions without a dimension"),
        (box(0), box(2), "observations without a dimension"),
    ],
)
def test_spaces_that_are_not_flat_boxes_are_refused(
    odd: str, observation: spaces.Space, action: spaces.Space, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        make_env(odd, observation=observation, action=action)
    make_env(odd, observation=box(3), action=box(2)).close()
