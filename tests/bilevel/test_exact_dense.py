"""What the factorised Hessian is said to be, decided by its eigenvalues."""

import pytest
import torch

from mbrl_bilevel.bilevel.implicit import ExactDense
from mbrl_bilevel.bilevel.linear_solve import Status
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.errors import InputError


def problem(eigenvalues: list[float]) -> BilevelProblem:
    """An inner Hessian of these eigenvalues, none of its eigenvectors along a coordinate."""
    n = len(eigenvalues)
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    hessian = (q * torch.tensor(eigenvalues, dtype=torch.float64)) @ q.mT
    return BilevelProblem(
        lambda theta, phi, data: 0.5 * theta["t"] @ hessian @ theta["t"] - phi["p"] @ theta["t"],
        lambda theta, phi, data: theta["t"].square().sum(),
    )


def solved(eigenvalues: list[float], damping: float = 0.0) -> Status:
    ones = torch.ones(len(eigenvalues), dtype=torch.float64)
    hyper = ExactDense(damping)(problem(eigenvalues), {"t": ones}, {"p": ones}, None, None)
    assert hyper.linear is not None
    return Status(hyper.linear.status.item())


@pytest.mark.parametrize(
    ("smallest", "status"), [(1e-10, Status.CONVERGED), (-1e-10, Status.NEGATIVE_CURVATURE)]
)
def test_an_indefinite_hessian_is_solved_and_named(smallest: float, status: Status) -> None:
    assert solved([1.0, 0.3, smallest]) == status


@pytest.mark.situation("refused")
@pytest.mark.parametrize("smallest", [0.0, 1e-18, -1e-18])
def test_a_hessian_singular_to_rounding_is_refused(smallest: float) -> None:
    with pytest.raises(InputError, match="add damping"):
        solved([1.0, 0.3, smallest])
    assert solved([1.0, 0.3, smallest], damping=1e-6) == Status.CONVERGED
