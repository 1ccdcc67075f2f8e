"""The policy that an outer objective follows in the model, as a command line names it."""

import torch

from mbrl_bilevel.agents.policy_mean import PolicyMean
from mbrl_bilevel.agents.trained_policy import load_prior
from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.objectives.settings import BilevelSettings
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.scripts.acting_environment import acting_environment


def visiting_policy(
    objective: ObjectiveSpec, dataset: Dataset, env: str | None, device: torch.device
) -> PolicyMean | None:
    """The mean action of the policy that `--visited-by` names; None where none is named.

    `env` is the environment that `--env` names, which must be that of the data set.

    Raises:
        InputError: no policy there, one of another environment or sizes, or a data set that does
            not say which environment it is of.
    """
    if not isinstance(objective, BilevelSettings) or objective.visited_by is None:
        return None
    spec = acting_environment(env, dataset.env_spec, f"data set {dataset.id}", "was collected in")
    acting = make_env(spec)
    try:
        name = objective.visited_by
        return load_prior(name, acting, spec, device, flag="--visited-by").policy
    finally:
        acting.close()
