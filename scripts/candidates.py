"""Which agents to evaluate: from the flags of eval-agent to specs, each checked before it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbrl_bilevel.agents.agent_spec import (
    AgentSpec,
    MPCSpec,
    PolicySpec,
    SimulatorSpec,
    TrainedPolicySpec,
)
from mbrl_bilevel.agents.planning_settings import mpc_settings, setting_names
from mbrl_bilevel.agents.policy_file import env_of_policy, load_policy_folder
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.stepping import step_limit
from mbrl_bilevel.envs.tasks import reference_scores
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.ranges import flag
from mbrl_bilevel.scripts.acting_environment import acting_environment
from mbrl_bilevel.scripts.command import say
from mbrl_bilevel.scripts.flag_checks import refuse_twice

SIMULATOR = Path("simulator")  # in place of a folder: the real simulation as the planner's model


@dataclass(frozen=True)
class Candidate:
    """An agent to evaluate: its name in tables, how to build it, what it plans or acts with."""

    name: str
    spec: AgentSpec
    model: Path | None = None
    planner: str | None = None
    policy: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Of its planner; empty for a policy."""
        if isinstance(self.spec, (PolicySpec, TrainedPolicySpec)):
            return {}
        return self.spec.settings.by_name()


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


def warn_of_models_without_environment(models: Sequence[Path], spec: EnvSpec) -> None:
    """Names models that do not say which environment they are of, where they act in `spec`."""
    for folder in models:
        if folder != SIMULATOR and DynamicsModel.load(folder).env_spec is None:
            say(
                f"warning: the model in {folder} names no environment and is taken for one of "
                f"{spec}: only its sizes are checked"
            )


def planning_candidates(
    models: Sequence[Path],
    planners: Sequence[str],
    env_id: str,
    chosen: Mapping[str, Any],
    *,
    device: str,
    threads: int,
    other_env: bool = False,
) -> list[Candidate]:
    """One candidate for every model and planner; `chosen` are the planners' settings, or None.

    A setting goes to those that have it, and the others say so.

    Raises:
        InputError: a model or planner named twice, or a chosen setting that none of them has or
            that is outside its range.
    """
    refuse_twice("--model", [model.resolve() for model in models])
    refuse_twice("--planner", planners)
    given = {name: value for name, value in chosen.items() if value is not None}
    pairs = [(model, planner) for model in models for planner in planners]
    known = [setting_names(planner, simulator=model == SIMULATOR) for model, planner in pairs]
    somewhere = set[str]().union(*known)
    found = []
    for (model, planner), names in zip(pairs, known, strict=True):
        name = _name(model, models) + (f" {planner}" if len(planners) > 1 else "")
        for setting in sorted(given.keys() & somewhere - set(names)):
            say(f"{name} has no {flag(setting)} and is evaluated without it")
        own = {n: v for n, v in given.items() if n in names or n not in somewhere}
        settings = mpc_settings(env_id, planner, simulator=model == SIMULATOR, **own)
        spec: AgentSpec = MPCSpec(model, settings, device, other_env)
        if model == SIMULATOR:
            spec = SimulatorSpec(settings, threads)
        found.append(Candidate(name, spec, model, planner))
    return found


def trained_policies(folders: Sequence[Path], *, other_env: bool = False) -> list[Candidate]:
    """One candidate for every run folder of `train-agent`.

    Raises:
        InputError: a folder named twice.
    """
    refuse_twice("--model", [folder.resolve() for folder in folders])
    return [
        Candidate(_name(one, folders), TrainedPolicySpec(one, other_env), model=one)
        for one in folders
    ]


def _name(model: Path, models: Sequence[Path]) -> str:
    """The last part of a folder's path, or the whole where another folder is called the same."""
    if [other.resolve().name for other in models].count(model.resolve().name) > 1:
        return str(model)
    return model.resolve().name


def check(
    candidates: Sequence[Candidate], spec: EnvSpec, max_steps: int | None
) -> tuple[int, tuple[float, float] | None]:
    """Makes every agent once, so that bad input shows before processes start.

    Returns the step limit of an episode, and the reference scores of such episodes.

    Raises:
        InputError: an agent or environment that cannot be made, or episodes without end.
    """
    env = make_env(spec)
    limit = step_limit(env, max_steps)
    for candidate in candidates:
        candidate.spec.agent(env, spec, 0)
    scores = reference_scores(env, max_steps)
    env.close()
    return limit, scores
