"""SOBA's moving average."""

import math

import torch
from torch import Tensor

from mbrl_bilevel.bilevel.gauss_newton import GaussNewton
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.soba import Soba
from tests.bilevel.gaussian_problem import gaussian_problem


def test_a_direction_that_is_not_finite_does_not_stay_in_a_moving_average() -> None:
    toy = gaussian_problem(2)

    def outer(theta: Params, phi: Params, data: tuple[Tensor, Tensor]) -> Tensor:
        return toy.problem.outer(theta, phi, data) + (phi["L"] * data[1].mean()).sum()

    soba = Soba(toy.problem._replace(outer=outer), GaussNewton(), averaging=0.25)
    first = soba.step(toy.theta, toy.phi, toy.inner, toy.outer).grad
    kept = {k: g.clone() for k, g in first.items()}
    x, y = toy.outer
    spoilt = soba.step(toy.theta, toy.phi, toy.inner, (x, y * math.nan)).grad
    assert torch.equal(spoilt["L"], kept["L"])
    assert soba.v is not None
    assert soba.v.isfinite().all()
    after = soba.step(toy.theta, toy.phi, toy.inner, toy.outer).grad
    assert all(g.isfinite().all() for g in after.values())
