"""Whether the learned model in a folder can stand for an environment."""

from pathlib import Path

import gymnasium
from gymnasium.spaces import Box

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.action_box import require_same_box
from mbrl_bilevel.envs.make import flat_names
from mbrl_bilevel.envs.rebuild import same_environment
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel


def check_model(
    model: DynamicsModel,
    folder: Path,
    spec: str | EnvSpec,
    env: gymnasium.Env,
    *,
    other_env: bool = False,
) -> None:
    """Refuses the model in a folder where it cannot stand for an environment.

    Raises:
        InputError: one of another environment or box of actions (without `other_env`), of other
            sizes, or of dimensions in another order.
    """
    spec = EnvSpec(spec) if isinstance(spec, str) else spec
    trained = model.env_spec
    if not other_env and trained is not None and not same_environment(trained, spec):
        raise InputError(
            f"the model in {folder} was trained for {trained}, not for {spec}: choose a model "
            "that was trained for the latter, or train one"
        )
    assert env.observation_space.shape is not None
    assert isinstance(env.action_space, Box)
    sizes = (*env.observation_space.shape, *env.action_space.shape)
    if (model.obs_dim, model.act_dim) != sizes:
        raise InputError(
            f"the model in {folder} has {model.obs_dim} observation and {model.act_dim} "
            f"action dimensions, {spec} has {sizes[0]} and {sizes[1]}: "
            "choose the environment that it was trained for"
        )
    if not other_env:
        whose = f"model in {folder}"
        require_same_box(model.action_box, env.action_space, whose, str(spec))
    names, known = flat_names(env), model.observation_names
    # Names alone tell columns that changed places: sizes and bounds may be the same.
    if names is not None and names != known and sorted(names) == sorted(known):
        raise InputError(
            f"the model in {folder} has observations in the order {', '.join(known)}, {spec} in "
            f"the order {', '.join(names)}: collect data in it and train another"
        )
