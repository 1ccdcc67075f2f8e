"""Which agents to judge: from the flags of eval-agent to recipes, each checked before it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbrl_bilevel.agents.planner_settings import planner_settings
from mbrl_bilevel.agents.policy_file import env_of_policy, load_policy_folder
from mbrl_bilevel.agents.recipe import (
    MPCRecipe,
    PolicyRecipe,
    Recipe,
    SimulatorRecipe,
    TrainedRecipe,
)
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.stepping import step_limit
from mbrl_bilevel.envs.tasks import reference_scores
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.acting_environment import acting_environment
from mbrl_bilevel.scripts.command import say
from mbrl_bilevel.scripts.flags import refuse_twice

SIMULATOR = Path("simulator")  # in place of a folder: the real simulation as the planner's model


@dataclass(frozen=True)
class Contender:
    """An agent to judge: its name in tables, how to build it, and what it plans or acts with."""

    name: str
    recipe: Recipe
    model: Path | None = None
    planner: str | None = None
    policy: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Of its planner; empty for a policy."""
        if isinstance(self.recipe, (PolicyRecipe, TrainedRecipe)):
            return {}
        return self.recipe.settings


def environment(
    models: Sequence[Path], agent: str, named: str | None, *, other_env: bool = False
) -> EnvSpec:
    """What is named, or what the model, or the policy, in the first folder was trained for.

    Raises:
        InputError: it says none, another than is named, or one whose name would import code; or
            the simulator alone.
    """
    folder = next((model for model in models if model != SIMULATOR), None)
    if folder is None:
        if named is None:
            raise InputError(
                "--model simulator: name the environment by --env, e.g. --env Hopper-v5"
            )
        return EnvSpec(named)
    what = "policy" if agent == "policy" else "model"
    if agent == "policy":
        known: EnvSpec | None = env_of_policy(load_policy_folder(folder), folder)
    else:
        known = DynamicsModel.load(folder).env_spec
    return acting_environment(named, known, f"{what} in {folder}", other_env=other_env)


def say_what_is_taken_on_trust(models: Sequence[Path], spec: EnvSpec) -> None:
    """Names models that do not say which environment they are of, where they act in `spec`."""
    for folder in models:
        if folder != SIMULATOR and DynamicsModel.load(folder).env_spec is None:
            say(
                f"warning: the model in {folder} does not name its environment; that it is of "
                f"{spec} is your word, only its sizes are checked"
            )


def planning_agents(
    models: Sequence[Path],
    planners: Sequence[str],
    env_id: str,
    chosen: Mapping[str, Any],
    device: str,
    threads: int,
    other_env: bool = False,
) -> list[Contender]:
    """One contender for every model and planner; `chosen` are the planners' settings, or None.

    Raises:
        InputError: a model or planner named twice, or a chosen setting that none of them has.
    """
    refuse_twice("--model", [model.resolve() for model in models])
    refuse_twice("--planner", planners)
    given = {name: value for name, value in chosen.items() if value is not None}
    pairs = [(model, planner) for model in models for planner in planners]
    taken = [planner_settings(env_id, planner, model == SIMULATOR) for model, planner in pairs]
    nowhere = {n: v for n, v in given.items() if not any(n in settings for settings in taken)}
    found = []
    for (model, planner), every in zip(pairs, taken, strict=True):
        name = _name(model, models) + (f" {planner}" if len(planners) > 1 else "")
        for setting in sorted(given.keys() - nowhere.keys() - every.keys()):
            say(f"{name} has no --{setting.replace('_', '-')} and is judged without it")
        own = nowhere | {n: v for n, v in given.items() if n in every}
        oracle = model == SIMULATOR
        settings = planner_settings(env_id, planner, oracle, **own)
        recipe: Recipe = MPCRecipe(model, planner, settings, device, other_env)
        if oracle:
            recipe = SimulatorRecipe(planner, settings, threads)
        found.append(Contender(name, recipe, model, planner))
    return found


def trained_policies(folders: Sequence[Path], other_env: bool = False) -> list[Contender]:
    """One contender for every run folder of `train-agent`.

    Raises:
        InputError: a folder named twice.
    """
    refuse_twice("--model", [folder.resolve() for folder in folders])
    return [
        Contender(_name(one, folders), TrainedRecipe(one, other_env), model=one) for one in folders
    ]


def _name(model: Path, models: Sequence[Path]) -> str:
    """The last part of a folder's path, or the whole where another folder is called the same."""
    if [other.resolve().name for other in models].count(model.resolve().name) > 1:
        return str(model)
    return model.resolve().name


def check(
    contenders: Sequence[Contender], spec: EnvSpec, max_steps: int | None
) -> tuple[int, tuple[float, float] | None]:
    """Makes every agent once, so that bad input shows before processes start.

    Returns the step limit of an episode, and the reference scores of such episodes.

    Raises:
        InputError: an agent or environment that cannot be made, or episodes without end.
    """
    env = make_env(spec)
    limit = step_limit(env, max_steps)
    for contender in contenders:
        contender.recipe.agent(env, spec, 0)
    scores = reference_scores(env, max_steps)
    env.close()
    return limit, scores
