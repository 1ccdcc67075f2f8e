"""Which environment a command acts in: that of its data or model, or the one named by --env."""

from dataclasses import replace
from typing import Literal

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.rebuild import same_environment, trusted
from mbrl_bilevel.envs.task_check import (
    GO_ON,
    LEARN_REWARD,
    checked_endings,
    reward_disagreement,
)
from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.errors import InputError


def acting_environment(
    named: str | None,
    known: EnvSpec | None,
    whose: str,
    origin: Literal["was trained for", "was collected in"] = "was trained for",
    *,
    other_env: bool = False,
) -> EnvSpec:
    """The environment to act in; `known` is on record of `whose`, such as "model in runs/a".

    A name stands for the environment as gymnasium makes it by that name, and must agree with what
    is on record but for the time limit. One with a module, as in "my_module:MyCart-v0", only says
    where the environment on record is registered. With `other_env` a name goes before the record.

    Raises:
        InputError: none is named or on record, both differ, or what is on record would import code.
    """
    if named is None:
        if known is None:
            raise InputError(f"the {whose} names no environment: name it by --env")
        return trusted(known, whose)
    spec = EnvSpec(named)
    if known is None or other_env:
        return spec
    if ":" in named or not same_environment(known, spec):
        make_env(named).close()  # which may not exist, or registers itself and its task
    if ":" in named and spec.name == known.name:
        return EnvSpec(named, known.kwargs, known.wrappers, known.max_episode_steps)
    if not same_environment(known, spec):
        raise InputError(
            f"the {whose} {origin} {known}, not {origin.split()[-1]} {named} as gymnasium makes "
            "it: leave --env out to act in the former, or choose another"
        )
    return spec


def agreeing(dataset: Dataset, task: Task | None, *, reward: bool) -> Dataset:
    """The data set, its time limits read as truncations, if it agrees with what is known of a task.

    Raises:
        InputError: rewards (if `reward`) or terminations that are not the task's.
    """
    if task is None:
        return dataset
    whose, data = f"data set {dataset.id!r}", dataset.transitions
    limit = dataset.env_spec.max_episode_steps if dataset.env_spec is not None else None
    data = checked_endings(task, data, limit, whose, GO_ON)
    wrong = None
    if reward:
        wrong = reward_disagreement(task, data, (dataset.action_low, dataset.action_high))
    if wrong is not None:
        raise InputError(f"{whose} holds {wrong}; {LEARN_REWARD}")
    return replace(dataset, transitions=data)
