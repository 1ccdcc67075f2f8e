"""The bilevel objective: a policy gradient whose reward is learned on data held out from it."""

import warnings
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.bilevel.hypergradient import ConvergenceWarning, Estimator, Hypergradient
from mbrl_bilevel.bilevel.soba import Soba
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.gated import GatedPolicyGradient
from mbrl_bilevel.objectives.network_problem import training_problem
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.training.batches import Batches
from mbrl_bilevel.training.divergence import TrainingDiverged
from mbrl_bilevel.training.objective import NothingLearned

CHECKED = 1024  # rows at which an evaluation looks at U(x)


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
    `Soba` in place of an estimator moves its linear-system variable one step an outer step. Both
    are clipped to a norm of `clip_norm`.

    Linear solves that an estimator sets aside (`Implicit.max_residual`) are counted, one per
    member, in the figure `linear_fallbacks`; the first of them are warned of at the next
    evaluation.

    Raises:
        InputError: nothing to learn in `inner`, `every` below 1, a learning rate that is not
            positive.
        TrainingDiverged: at an evaluation, a learned U(x) that is not finite and positive.
    """

    name = "bilevel"
    selects_by: Literal["nll", "mse"]

    def __init__(
        self,
        inner: PolicyGradient | GatedPolicyGradient,
        outer: OuterBatches,
        *,
        estimator: Estimator | Soba | None = None,
        every: int = 2,
        learning_rate: float = 3e-3,
        steps: int = 20_000,
        warm_up: int | None = None,
        clip_norm: float = 100.0,
    ) -> None:
        phi = [p for p in inner.parameters() if p.requires_grad]
        if not phi:
            raise InputError("the bilevel objective has no reward parameters to learn; use pg")
        if estimator is not None and isinstance(inner, GatedPolicyGradient):
            raise InputError("gated weights are learned by the closed form: leave estimator out")
        if every < 1:
            raise InputError(f"an outer step every {every} inner steps: choose at least 1")
        self.inner, self.outer, self.every = inner, outer, every
        if not learning_rate > 0:
            raise InputError(f"an outer learning rate of {learning_rate}: choose one above 0")
        self.estimator = estimator
        self.frozen = False
        self.unsolved: dict[str, Tensor] = {}  # linear solves set aside since the last evaluation
        self.warned = False
        self.linear_state: Tensor | None = None
        self.selects_by = inner.selects_by
        if warm_up is None:
            warm_up = 0 if estimator is None else steps // 10
        self.warm_up, self.clip_norm = warm_up, clip_norm
        # The second moment must forget the large first gradients, hence 0.99. A direction that is
        # a moving average already needs no second one.
        averaged = isinstance(estimator, Soba) and estimator.averaging < 1.0
        betas = (0.0 if averaged else 0.9, 0.99)
        self.optimizer = torch.optim.Adam(phi, lr=learning_rate, betas=betas)
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
        self._check_reward(network, x[:CHECKED])
        self._warn_of_unsolved()

    def freeze(self) -> None:
        """The reward and the weights stay as they are from now on."""
        self.frozen = True

    def after_step(
        self, network: GaussianEnsemble, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self.frozen or step <= self.warm_up or step % self.every:
            return {}
        self.optimizer.zero_grad(set_to_none=True)
        if self.estimator is None:
            figures = self._closed_form(network)
        else:
            figures = self._implicit(network, self.estimator, generator)
        figures["left_out"] = self._leave_out(figures["hypergradient_norm"])
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
        self, network: GaussianEnsemble, estimator: Estimator | Soba, generator: torch.Generator
    ) -> dict[str, Tensor]:
        theta = {k: p.detach() for k, p in network.named_parameters()}
        phi = {k: p.detach() for k, p in self.inner.named_parameters() if p.requires_grad}
        x, y = self.inner_batch
        assert isinstance(self.inner, PolicyGradient)
        noise: Tensor | None = None  # frozen within one solve, drawn anew for the next
        if self.inner.estimator != "exact":
            with torch.no_grad():
                noise = self.inner.draw_noise(network(x), generator)
        data, outer = (x, y, noise), next(self.outer)
        if isinstance(estimator, Soba):
            found = estimator.step(theta, phi, data, outer)
        else:
            problem = training_problem(network, self.inner)
            found = estimator(problem, theta, phi, data, outer, self.linear_state)
            if found.state is not None:  # a start that is not finite would stay so for ever
                self.linear_state = torch.where(found.state.isfinite(), found.state, 0.0)
        self._take(found)
        self._note_unsolved(found)
        return found.metrics()

    def _note_unsolved(self, found: Hypergradient) -> None:
        if found.fallbacks is None or found.linear is None:
            return
        residual = found.linear.relative_residual.nan_to_num(torch.inf).max()
        new = {"count": found.fallbacks, "residual": residual}
        new["iterations"] = found.linear.iterations.max()
        old = self.unsolved or {k: torch.zeros_like(v) for k, v in new.items()}
        self.unsolved = {k: torch.maximum(old[k], v) for k, v in new.items()}
        self.unsolved["count"] = old["count"] + new["count"]

    def _warn_of_unsolved(self) -> None:
        """Once; the figure `linear_fallbacks` counts on."""
        unsolved, self.unsolved = self.unsolved, {}
        if self.warned or not unsolved or not int(unsolved["count"]):
            return
        self.warned = True
        warnings.warn(
            f"the hypergradient's linear system was left unsolved {int(unsolved['count'])} times "
            f"since the last evaluation (relative residual up to {float(unsolved['residual']):.2g} "
            f"after {int(unsolved['iterations'])} iterations); such members take the first-order "
            "direction and are counted in outer/linear_fallbacks; a lower outer learning rate or "
            "larger outer batches help, and against negative curvature Gauss-Newton products "
            "(fisher)",
            ConvergenceWarning,
            stacklevel=2,
        )

    def _check_reward(self, network: GaussianEnsemble, x: Float[Tensor, "b d"]) -> None:
        U = self.precision_diagonal(network, x)
        if U is not None and not bool((U.isfinite() & (U > 0)).all()):
            raise TrainingDiverged(
                f"the learned reward diverged: U(x) runs from {float(U.amin()):.3g} to "
                f"{float(U.amax()):.3g} and is not finite and positive everywhere; lower the outer "
                "learning rate, or learn the reward on data held out from the model"
            )

    def _take(self, found: Hypergradient) -> None:
        size = torch.stack([g.norm() for g in found.grad.values()]).norm()
        scale = (self.clip_norm / size).clamp(max=1.0)
        for name, p in self.inner.named_parameters():
            if p.requires_grad:
                p.grad = scale * found.grad[name]

    def _leave_out(self, norm: Tensor) -> Tensor:
        """1 where the hypergradient is not finite, which is then left out, without a sync."""
        lost = ~norm.isfinite()
        for p in self.optimizer.param_groups[0]["params"]:
            if p.grad is not None:
                p.grad.masked_fill_(lost, 0.0)
        return lost.long()

    def slow_down(self, factor: float) -> None:
        self.optimizer.param_groups[0]["lr"] *= factor
        self.schedule.base_lrs = [factor * lr for lr in self.schedule.base_lrs]
        self.schedule.eta_min *= factor

    def _gradient_norm(self) -> Tensor:
        gradients = [p.grad for p in self.inner.parameters() if p.grad is not None]
        return torch.stack([g.norm() for g in gradients]).norm()

    def state(self) -> dict[str, Tensor]:
        tensors = {f"phi.{k}": p.detach() for k, p in self.inner.named_parameters()}
        tensors |= {f"batches.{k}": v for k, v in self.outer.batches.state().items()}
        for i, p in enumerate(self.optimizer.param_groups[0]["params"]):
            tensors |= {f"adam.{i}.{k}": v for k, v in self.optimizer.state[p].items()}
        tensors["outer_steps"] = torch.tensor(self.schedule.last_epoch)
        rates = [self.optimizer.param_groups[0]["lr"], self.schedule.eta_min]
        tensors["learning_rates"] = torch.tensor(rates, dtype=torch.float64)
        if self.linear_state is not None:
            tensors["linear_state"] = self.linear_state
        if isinstance(self.estimator, Soba):
            tensors |= {f"soba.{k}": v for k, v in self.estimator.state_dict().items()}
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
        rate, self.schedule.eta_min = state["learning_rates"].tolist()
        self.schedule._last_lr = [rate]
        self.optimizer.param_groups[0]["lr"] = rate
        self.linear_state = state.get("linear_state")
        if isinstance(self.estimator, Soba):
            self.estimator.load_state_dict(part("soba."))
