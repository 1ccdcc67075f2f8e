"""The bilevel objective: a policy gradient whose reward is learned on data held out from it."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from mbrl_bilevel.bilevel.hypergradient import Estimator, Hypergradient
from mbrl_bilevel.bilevel.parameters import Params
from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import DiagonalGaussian, Gaussian, GaussianEnsemble
from mbrl_bilevel.objectives.gated import GatedPolicyGradient
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.training.batches import Batches
from mbrl_bilevel.training.objective import NothingLearned

InnerData = tuple[Tensor, Tensor, Tensor | None]  # x, y, and the noise of sampled estimators


class OuterBatches:
    """Batches of the outer data: rows [E, M] that member e was not fitted to, and no other.

    The same rows for every member are plain held-out data. Rows that differ are cross-fitting:
    every transition serves the inner level of some members and the outer level of the others.
    """

    def __init__(
        self,
        x: Float[Tensor, "b d"],
        y: Float[Tensor, "b n"],
        rows: Int[Tensor, "e m"],
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.x, self.y = x, y
        shared = bool((rows == rows[:1]).all())
        self.batches = Batches(rows, batch_size, generator, shared=shared)

    def __next__(self) -> tuple[Float[Tensor, "e b d"], Float[Tensor, "e b n"]]:
        rows = next(self.batches)
        return self.x[rows], self.y[rows]


class Bilevel(NothingLearned):
    """min over phi of the outer NLL of theta*(phi), the inner optimum of -J (theory T1), jointly.

    The fit loop moves theta by the inner loss, as for every objective; `after_step` moves phi, the
    parameters of `inner` (those of its reward and its weights), once every `every` steps by Adam on
    the hypergradient. Without an `estimator` this is the closed form (theory T6), which asks for
    a Mahalanobis reward: the outer NLL of N(mu(x), (lam / 2) U(x)^-1) with the fitted mean held
    still. With one, it is implicit differentiation through the network (theory T8), which says
    little of an untrained network: phi then rests for `warm_up` steps, by default a tenth of them.

    Raises:
        InputError: nothing to learn in `inner`, or `every` below 1.
    """

    name = "bilevel"
    selects_by: Literal["nll", "mse"]

    def __init__(
        self,
        inner: PolicyGradient | GatedPolicyGradient,
        outer: OuterBatches,
        *,
        estimator: Estimator | None = None,
        every: int = 2,
        learning_rate: float = 3e-3,
        steps: int = 20_000,
        warm_up: int | None = None,
    ) -> None:
        phi = [p for p in inner.parameters() if p.requires_grad]
        if not phi:
            raise InputError("the bilevel objective has no reward parameters to learn; use pg")
        if estimator is not None and isinstance(inner, GatedPolicyGradient):
            raise InputError("gated weights are learned by the closed form: leave estimator out")
        if every < 1:
            raise InputError(f"an outer step every {every} inner steps: choose at least 1")
        self.inner, self.outer, self.every = inner, outer, every
        self.estimator = estimator
        self.linear_state: Tensor | None = None
        self.selects_by = inner.selects_by
        if warm_up is None:
            warm_up = 0 if estimator is None else steps // 10
        self.warm_up = warm_up
        # The second moment must forget the large first gradients, hence 0.99.
        self.optimizer = torch.optim.Adam(phi, lr=learning_rate, betas=(0.9, 0.99))
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, max(1, (steps - warm_up) // every), 0.01 * learning_rate
        )

    def __call__(
        self,
        network: GaussianEnsemble,
        x: Float[Tensor, "e b d"],
        y: Float[Tensor, "e b n"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        self.inner_batch = (x, y)  # an implicit estimator differentiates the same inner batch
        return self.inner(network, x, y, generator)

    def calibrate(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"], y: Float[Tensor, "b n"]
    ) -> None:
        self.inner.calibrate(network, x, y)

    def after_step(
        self, network: GaussianEnsemble, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if step <= self.warm_up or step % self.every:
            return {}
        self.optimizer.zero_grad(set_to_none=True)
        if self.estimator is None:
            figures = self._closed_form(network)
        else:
            figures = self._implicit(network, self.estimator, generator)
        self.optimizer.step()
        self.schedule.step()
        return figures

    @torch.no_grad()
    def precision_diagonal(
        self, network: GaussianEnsemble, x: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n"] | None:
        """U_ii(x) of the learned reward, to look at; None for a reward that has no U."""
        if isinstance(self.inner, GatedPolicyGradient):
            return self.inner.precision_diagonal(network, x)
        if not hasattr(self.inner.reward, "precision_diagonal"):
            return None
        U: Tensor = self.inner.reward.precision_diagonal(x)
        return U.expand(len(x), -1)

    def _closed_form(self, network: GaussianEnsemble) -> dict[str, Tensor]:
        x, y = next(self.outer)
        loss, nll = self.inner.outer_loss(network, x, y)
        loss.backward()
        return {"nll": nll / y.shape[-1], "hypergradient_norm": self._gradient_norm()}

    def _implicit(
        self, network: GaussianEnsemble, estimator: Estimator, generator: torch.Generator
    ) -> dict[str, Tensor]:
        theta = {k: p.detach() for k, p in network.named_parameters()}
        phi = {k: p.detach() for k, p in self.inner.named_parameters() if p.requires_grad}
        x, y = self.inner_batch
        assert isinstance(self.inner, PolicyGradient)
        noise: Tensor | None = None  # frozen within one solve, drawn anew for the next
        if self.inner.estimator != "exact":
            with torch.no_grad():
                noise = self.inner.draw_noise(network(x), generator)
        problem = training_problem(network, self.inner)
        found = estimator(problem, theta, phi, (x, y, noise), next(self.outer), self.linear_state)
        if found.state is not None:  # a start that is not finite would never become finite again
            self.linear_state = torch.where(found.state.isfinite(), found.state, 0.0)
        self._take(found)
        return found.metrics()

    def _take(self, found: Hypergradient) -> None:
        finite = torch.stack([g.isfinite().all() for g in found.grad.values()]).all()
        for name, p in self.inner.named_parameters():
            if p.requires_grad:  # a direction that is not finite is left out, without a sync
                p.grad = torch.where(finite, found.grad[name], torch.zeros_like(p))

    def _gradient_norm(self) -> Tensor:
        gradients = [p.grad for p in self.inner.parameters() if p.grad is not None]
        return torch.stack([g.norm() for g in gradients]).norm()

    def state(self) -> dict[str, Tensor]:
        tensors = {f"phi.{k}": p.detach() for k, p in self.inner.named_parameters()}
        tensors |= {f"batches.{k}": v for k, v in self.outer.batches.state().items()}
        for i, p in enumerate(self.optimizer.param_groups[0]["params"]):
            tensors |= {f"adam.{i}.{k}": v for k, v in self.optimizer.state[p].items()}
        tensors["outer_steps"] = torch.tensor(self.schedule.last_epoch)
        tensors["learning_rate"] = torch.tensor(self.schedule.get_last_lr(), dtype=torch.float64)
        if self.linear_state is not None:
            tensors["linear_state"] = self.linear_state
        return tensors

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        for name, p in self.inner.named_parameters():
            p.copy_(state[f"phi.{name}"])
        self.outer.batches.load_state({k: v.cpu() for k, v in part("batches.").items()})
        for i, p in enumerate(self.optimizer.param_groups[0]["params"]):
            if moments := part(f"adam.{i}."):
                self.optimizer.state[p] = moments
        self.schedule.last_epoch = int(state["outer_steps"])
        rate = float(state["learning_rate"])
        self.schedule._last_lr = [rate]
        self.optimizer.param_groups[0]["lr"] = rate
        self.linear_state = state.get("linear_state")


def training_problem(network: GaussianEnsemble, inner: PolicyGradient) -> BilevelProblem:
    """The bilevel problem of a network: inner loss -J per member, outer NLL summed over members.

    Inner data are (x, y, noise or None), outer data (x, y); x [E, B, d] and y [E, B, n].
    """

    def loss_of(gaussian: Gaussian, phi: Params, data: InnerData) -> Float[Tensor, "e"]:
        x, y, noise = data
        return functional_call(inner, phi, (gaussian, x, y), {"noise": noise}, strict=False)[0]

    def inner_loss(theta: Params, phi: Params, data: InnerData) -> Float[Tensor, "e"]:
        return loss_of(functional_call(network, theta, (data[0],)), phi, data)

    def outer_loss(theta: Params, phi: Params, data: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
        x, y = data
        return -functional_call(network, theta, (x,)).log_prob(y).mean(-1).sum()

    if network.covariance == "full":  # its factor has no fixed-size output: Hessian products only
        return BilevelProblem(inner_loss, outer_loss, ensemble=True)

    def outputs(theta: Params, data: InnerData) -> Float[Tensor, "e b k"]:
        gaussian = functional_call(network, theta, (data[0],))
        return torch.cat([gaussian.mean, gaussian.log_std], -1)

    def output_loss(output: Float[Tensor, "e b k"], phi: Params, data: InnerData) -> Tensor:
        mean, log_std = output.chunk(2, -1)
        return loss_of(DiagonalGaussian(mean, log_std), phi, data)

    return BilevelProblem(inner_loss, outer_loss, True, outputs, output_loss)


def fisher_metric(
    inner: PolicyGradient,
) -> Callable[[Float[Tensor, "e b k"], Params, InnerData], Float[Tensor, "e b k k"]]:
    """lam w times the Fisher information of a diagonal Gaussian by (mean, log_std), over the batch.

    At the inner optimum S = (lam / 2) U^-1 it is the Hessian of the exact inner loss by the outputs
    (theory T8), and it needs no second derivative of a sampled reward.
    """

    def metric(
        output: Float[Tensor, "e b k"], phi: Params, data: InnerData
    ) -> Float[Tensor, "e b k k"]:
        log_std = output.chunk(2, -1)[1]
        information = torch.cat([torch.exp(-2 * log_std), torch.full_like(log_std, 2.0)], -1)
        if inner.weights is not None:
            weight = inner.weights(data[0]).detach()
            if weight.ndim == log_std.ndim:
                weight = torch.cat([weight, weight], -1)
            else:
                weight = weight.unsqueeze(-1)
            information = weight * information
        return torch.diag_embed(inner.lam * information / output.shape[-2])

    return metric
