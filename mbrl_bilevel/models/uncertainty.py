"""How unsure an ensemble is of a step."""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel

Penalty = Literal["aleatoric", "disagreement"]


def uncertainty(
    model: DynamicsModel, obs: Float[Tensor, "b o"], act: Float[Tensor, "b a"], kind: Penalty
) -> Float[Tensor, "b"]:
    """How unsure the elites are of the target (change of observation, reward).

    "aleatoric": max_e ||s_e(x)||, the largest norm of an elite's predicted deviations (MOPO, Yu et
    al. 2020, section 4.3). "disagreement": the norm of the elites' population deviation of mu_e(x)
    (Lakshminarayanan et al. 2017), which noise of the data does not enter.

    Deviations are in units of the target's own over the training data, each counted up to 1: one
    that is larger says no more than that nothing is known, and would drown the reward. So a norm is
    at most sqrt(n), whatever the units of the environment.
    """
    gaussian, unit = model.predict(obs, act), model.target_standardizer.std
    if kind == "aleatoric":
        return (gaussian.std[model.elites] / unit).clamp(max=1.0).norm(dim=-1).amax(0)
    spread = gaussian.mean[model.elites].std(0, correction=0)
    return (spread / unit).clamp(max=1.0).norm(dim=-1)


def check_penalty(model: DynamicsModel, weight: float, kind: Penalty) -> None:
    """Refuses a weight or a kind of penalty on the uncertainty that cannot be.

    Raises:
        InputError: a negative weight, another kind, or disagreement among fewer than 2 elites.
    """
    if not 0 <= weight < float("inf"):
        raise InputError(f"uncertainty_penalty {weight}: it must be finite and not negative")
    if kind not in get_args(Penalty):
        raise InputError(f"penalty {kind!r}: choose one of {', '.join(get_args(Penalty))}")
    if weight > 0 and kind == "disagreement" and len(model.elites) < 2:
        raise InputError(
            f"a penalty on the disagreement of {len(model.elites)} elite: keep 2 or more, "
            "or choose the aleatoric one"
        )
