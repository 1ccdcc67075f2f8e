"""How unsure an ensemble is of a step."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import Gaussian
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.sampling import deal, deviation, of_members, take_rows
from mbrl_bilevel.protocols import NextStep

Penalty = Literal["aleatoric", "disagreement"]


@torch.no_grad()
def sample_with_uncertainty(
    model: DynamicsModel,
    obs: Float[Tensor, "b o"],
    act: Float[Tensor, "b a"],
    generator: torch.Generator,
    kind: Penalty,
) -> tuple[NextStep, Float[Tensor, "b"]]:
    """`DynamicsModel.sample`, and how unsure the elites are of it, by one pass of the elites.

    The sample is the same as without the uncertainty, up to rounding. The uncertainty is of the
    target (change of observation, reward). "aleatoric": max_e ||s_e(x)||, the largest norm of an
    elite's predicted deviations (MOPO, Yu et al. 2020, section 4.3). "disagreement": the norm of
    the elites' population deviation of mu_e(x) (Lakshminarayanan et al. 2017), which noise of the
    data does not enter.

    Deviations are in units of the target's own over the training data, each counted up to 1: one
    that is larger says no more than that nothing is known, and would drown the reward. So a norm is
    at most sqrt(n), whatever the units of the environment.
    """
    obs, act = model.cast(obs), model.cast(act)
    gaussian = model.elite_network()(model.inputs(obs, act))
    rows, place = deal(len(obs), len(gaussian.mean), generator, obs.device)
    noise = torch.randn(
        (*rows.shape, gaussian.mean.shape[-1]),
        generator=generator,
        device=obs.device,
        dtype=obs.dtype,
    )
    y = of_members(gaussian, place // rows.shape[1]).rsample(take_rows(noise.flatten(0, 1), place))
    step = model.next_step(obs, model.target_standardizer.restore(model.widen(y)))
    return step, _norm(gaussian, kind)


def _norm(gaussian: Gaussian, kind: Penalty) -> Float[Tensor, "b"]:
    """Of standardised targets; what is constant in training has no deviation."""
    if kind == "aleatoric":
        return gaussian.std.clamp(max=1.0).norm(dim=-1).amax(0)
    return deviation(gaussian.mean).clamp(max=1.0).norm(dim=-1)


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
