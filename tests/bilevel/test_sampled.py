"""Inner losses estimated from samples: which second derivatives are right, and which are not.

Replicates of an experiment are ensemble members: a thousand estimates come from one call.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mbrl_bilevel.bilevel.implicit import ExactDense, Implicit
from mbrl_bilevel.bilevel.linear_solve import Status, dense
from mbrl_bilevel.bilevel.parameters import Params, ravel
from mbrl_bilevel.bilevel.problem import BilevelProblem, InnerGradient
from tests.bilevel.gaussian_problem import relative_error

Record = Callable[[str, object], None]
DTYPE = torch.float64
LAM = 1.0
U = 0.6
# Inner and outer targets, without an input, one dimension.
Y = torch.tensor([-1.0, 0.5, 1.5], dtype=DTYPE)
Y_OUT = torch.tensor([-0.5, 0.4, 2.0], dtype=DTYPE)


def log_prob(theta: Params, y: Tensor) -> Tensor:
    """log N(y; mean, std^2) of samples [e, m] under members' parameters [e], up to a constant."""
    mean, log_std = theta["mean"].unsqueeze(-1), theta["log_std"].unsqueeze(-1)
    return -0.5 * ((y - mean) * (-log_std).exp()).square() - log_std


def expected_reward(phi: Params, y_hat: Tensor) -> Tensor:
    """E_y r(y_hat, y) of samples [e, m]."""
    return -phi["u"].unsqueeze(-1) * (y_hat.unsqueeze(-1) - Y).square().mean(-1)


def leave_one_out(r: Tensor) -> Tensor:
    return (r.sum(-1, keepdim=True) - r) / (r.shape[-1] - 1)


def exact(theta: Params, phi: Params, data: Any) -> Tensor:
    """Theory T2."""
    fit = (theta["mean"].unsqueeze(-1) - Y).square().mean(-1)
    return phi["u"] * (fit + (2 * theta["log_std"]).exp()) - LAM * theta["log_std"]


def pathwise(theta: Params, phi: Params, noise: Tensor) -> Tensor:
    y_hat = theta["mean"].unsqueeze(-1) + theta["log_std"].exp().unsqueeze(-1) * noise
    return -expected_reward(phi, y_hat).mean(-1) - LAM * theta["log_std"]


def samples(theta: Params, noise: Tensor) -> Tensor:
    y_hat = theta["mean"].unsqueeze(-1) + theta["log_std"].exp().unsqueeze(-1) * noise
    return y_hat.detach()


def magic_box(theta: Params, phi: Params, noise: Tensor) -> Tensor:
    """DiCE (Foerster et al. 2018): exp(logp - logp.detach()) keeps derivatives of every order."""
    y_hat = samples(theta, noise)
    logp, r = log_prob(theta, y_hat), expected_reward(phi, y_hat)
    box = (logp - logp.detach()).exp()
    return -(box * (r - leave_one_out(r))).mean(-1) - LAM * theta["log_std"]


def naive(theta: Params, phi: Params, noise: Tensor) -> Tensor:
    """The REINFORCE surrogate: right gradient, wrong Hessian."""
    y_hat = samples(theta, noise)
    r = expected_reward(phi, y_hat)
    advantage = r - leave_one_out(r)
    return -(log_prob(theta, y_hat) * advantage).mean(-1) - LAM * theta["log_std"]


def outer(theta: Params, phi: Params, data: Any) -> Tensor:
    return -log_prob(theta, Y_OUT).mean(-1).sum()


def replicate(replicates: int, log_std: float) -> tuple[Params, Params]:
    def full(value: float) -> Tensor:
        return torch.full((replicates,), value, dtype=DTYPE)

    return {"mean": full(Y.mean().item()), "log_std": full(log_std)}, {"u": full(U)}


def derivatives(inner: Any, theta: Params, phi: Params, noise: Tensor | None) -> dict[str, Tensor]:
    """Gradient, Hessian and cross product of every replicate."""
    graph = InnerGradient(BilevelProblem(inner, outer, ensemble=True), theta, phi, noise)
    gradient = ravel(graph.gradient, ensemble=True)
    return {
        "gradient": gradient,
        "hessian": dense(graph.hessian_product, gradient),
        "cross": graph.cross_product(torch.ones_like(gradient))["u"],
    }


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


REPLICATES = 2000


def standard_errors_off(found: Tensor, expected: Tensor) -> float:
    """Largest distance of the replicates' mean from the truth, in standard errors."""
    error = found.std(0) / math.sqrt(len(found))
    return ((found.mean(0) - expected).abs() / error.clamp_min(1e-12)).max().item()


@pytest.mark.parametrize("inner", [pathwise, magic_box])
def test_right_estimators_are_unbiased(inner: Any) -> None:
    """Within 4 standard errors: 7 figures each exceed that by chance in one seed of 2,000."""
    theta, phi = replicate(REPLICATES, log_std=0.2)
    theta["mean"] = theta["mean"] + 0.4  # away from the optimum, where all terms matter
    found = derivatives(inner, theta, phi, normal(REPLICATES, 16))
    expected = derivatives(exact, theta, phi, None)
    for name in expected:
        assert standard_errors_off(found[name], expected[name][0]) < 4, name


def test_the_naive_surrogate_has_a_wrong_hessian(record_property: Record) -> None:
    """Its gradient passes; its Hessian is off by several times, with 16 as with 1,024 samples."""
    theta, phi = replicate(REPLICATES, log_std=0.5 * math.log(LAM / (2 * U)))
    expected = derivatives(exact, theta, phi, None)
    off = {}
    for m in (16, 1024):
        found = derivatives(naive, theta, phi, normal(REPLICATES, m))
        assert standard_errors_off(found["gradient"], expected["gradient"][0]) < 4
        assert standard_errors_off(found["hessian"], expected["hessian"][0]) > 40
        mean, truth = found["hessian"].mean(0), expected["hessian"][0]
        off[m] = ((mean - truth).norm() / truth.norm()).item()
        assert torch.linalg.eigvalsh(mean).min() < 0 < torch.linalg.eigvalsh(truth).min()
    record_property("relative_error", off[1024])
    assert off[1024] > 1.0
    assert off[1024] > 0.8 * off[16]


def truth() -> float:
    """dF/du = -1/(2u) + s^2/lam, s^2 the outer squared residual (theory T8, unit values)."""
    return -1 / (2 * U) + (Y_OUT - Y.mean()).square().mean().item() / LAM


def hypergradient_errors(inner: Any, m: int, replicates: int) -> Tensor:
    """Errors of dF/du at theta*, one per replicate of m samples."""
    theta, phi = replicate(replicates, log_std=0.5 * math.log(LAM / (2 * U)))
    problem = BilevelProblem(inner, outer, ensemble=True)
    hyper = ExactDense()(problem, theta, phi, normal(replicates, m, seed=m), None)
    return hyper.grad["u"] - truth()


def test_the_hypergradient_converges_as_the_root_of_samples(record_property: Record) -> None:
    """16 times the samples, a quarter of the median error (3 to 5.3: the medians' own noise)."""
    for inner in (pathwise, magic_box):
        small, large = (hypergradient_errors(inner, m, 200) for m in (512, 8192))
        ratio = (small.abs().median() / large.abs().median()).item()
        record_property(f"ratio_{inner.__name__}", ratio)
        assert 3 < ratio < 5.3
        assert standard_errors_off(large.unsqueeze(-1), torch.zeros(())) < 4


def test_the_naive_hypergradient_points_the_wrong_way(record_property: Record) -> None:
    """Only the indirect part is there, so a wrong sign of H is a wrong sign of dF/du."""
    found = hypergradient_errors(naive, 16384, 50).mean().item() + truth()
    record_property("ratio", found / truth())
    assert found / truth() < 0
    theta, phi = replicate(1, log_std=0.5 * math.log(LAM / (2 * U)))
    problem = BilevelProblem(naive, outer, ensemble=True)
    hyper = Implicit(warn=False)(problem, theta, phi, normal(1, 16384), None)
    assert hyper.linear is not None
    assert hyper.linear.status.item() == Status.NEGATIVE_CURVATURE


def test_pathwise_products_are_far_less_noisy(record_property: Record) -> None:
    theta, phi = replicate(REPLICATES, log_std=0.0)
    v = torch.tensor([1.0, 1.0], dtype=DTYPE)
    noise = normal(REPLICATES, 16)
    spread = {
        inner.__name__: (derivatives(inner, theta, phi, noise)["hessian"] @ v).var(0).sum().item()
        for inner in (pathwise, magic_box)
    }
    ratio = spread["magic_box"] / spread["pathwise"]
    record_property("variance_ratio", ratio)
    assert ratio > 10


# A categorical model over few classes, where enumeration is exact (theory T7).

CONTEXTS, CLASSES = 4, 5


def class_probabilities() -> Tensor:
    return torch.softmax(normal(CONTEXTS, CLASSES, seed=7), -1)


def class_reward(phi: Params) -> Tensor:
    """E_y r(k, y, x) of the one-hot Mahalanobis reward, [contexts, classes]."""
    unit = torch.eye(CLASSES, dtype=DTYPE)
    difference = unit.unsqueeze(1) - unit.unsqueeze(0)
    r = -(difference @ phi["L"].tril()).square().sum(-1)
    return class_probabilities() @ r.T


def enumerated(theta: Params, phi: Params, data: Any) -> Tensor:
    logp = theta["logits"].log_softmax(-1)
    return -(logp.exp() * (class_reward(phi) - LAM * logp)).sum(-1).mean(-1)


def sampled(theta: Params, phi: Params, drawn: Tensor) -> Tensor:
    """The reward from drawn classes [e, contexts, m] by DiCE, the entropy enumerated."""
    logp = theta["logits"].log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    chosen = logp.gather(-1, drawn)
    r = class_reward(phi).expand(*drawn.shape[:-1], -1).gather(-1, drawn)
    box = (chosen - chosen.detach()).exp() * (r - leave_one_out(r))
    return -(box.mean(-1) + LAM * entropy).mean(-1)


def cross_entropy(theta: Params, phi: Params, data: Any) -> Tensor:
    nll = -(class_probabilities() * theta["logits"].log_softmax(-1)).sum(-1)
    return nll.mean(-1).sum()


def test_categorical_implicit_equals_the_enumerated_optimum(record_property: Record) -> None:
    """theta* = E r / lam (theory T7) differentiated directly; the logits' shift is a null space."""
    phi = {"L": (torch.eye(CLASSES, dtype=DTYPE) + 0.3 * normal(CLASSES, CLASSES, seed=9)).tril()}
    theta = {"logits": class_reward(phi) / LAM}
    problem = BilevelProblem(enumerated, cross_entropy)
    hyper = Implicit(rtol=1e-14, max_iterations=500)(problem, theta, phi, None, None)
    L = phi["L"].clone().requires_grad_()
    solved = cross_entropy({"logits": class_reward({"L": L}) / LAM}, phi, None)
    expected = {"L": torch.autograd.grad(solved, L)[0]}
    error = relative_error(hyper.grad, expected)
    record_property("error", error)
    assert hyper.inner_gradient_norm < 1e-14
    assert error < 1e-12


def test_categorical_samples_are_unbiased() -> None:
    """Gradient and Hessian products of DiCE over drawn classes, within 4 standard errors."""
    phi = {"L": (torch.eye(CLASSES, dtype=DTYPE) + 0.3 * normal(CLASSES, CLASSES, seed=9)).tril()}
    logits = normal(CONTEXTS, CLASSES, seed=3)
    theta = {"logits": logits.expand(REPLICATES, -1, -1)}
    generator = torch.Generator().manual_seed(11)
    flat = logits.softmax(-1).expand(REPLICATES, -1, -1).reshape(-1, CLASSES)
    drawn = torch.multinomial(flat, 8, replacement=True, generator=generator)
    drawn = drawn.reshape(REPLICATES, CONTEXTS, 8)
    v = normal(CONTEXTS * CLASSES, seed=13)
    found = InnerGradient(BilevelProblem(sampled, cross_entropy, ensemble=True), theta, phi, drawn)
    truth = InnerGradient(BilevelProblem(enumerated, cross_entropy), {"logits": logits}, phi, None)
    product = found.hessian_product(v.expand(REPLICATES, -1))
    assert standard_errors_off(product, truth.hessian_product(v)) < 4
    gradient = ravel(found.gradient, ensemble=True)
    assert standard_errors_off(gradient, ravel(truth.gradient)) < 4
