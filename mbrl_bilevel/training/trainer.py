"""The state of a fit, and the gradient step that moves it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.training.averages import Averages
from mbrl_bilevel.training.batches import Batches, Resampling, resample
from mbrl_bilevel.training.checkpoint import load_checkpoint, save_checkpoint
from mbrl_bilevel.training.divergence import SkippedSteps, check_finite, check_metrics, likely_cause
from mbrl_bilevel.training.held_out import (
    CHUNK,
    BestMembers,
    held_out_metrics,
    standardized_square,
)
from mbrl_bilevel.training.objective import Objective

Schedule = Literal["constant", "cosine", "plateau"]


class Samples(NamedTuple):
    """Standardised inputs and targets, on the device that trains."""

    x: Float[Tensor, "b d"]
    y: Float[Tensor, "b n"]

    def like(self, network: nn.Module) -> "Samples":
        """The same rows in the dtype of the network's weights, as data without a gradient."""
        dtype = next(network.parameters()).dtype
        return Samples(self.x.detach().to(dtype), self.y.detach().to(dtype))


@dataclass(frozen=True)
class FitResult:
    """How a fit ended: held-out metrics of the restored best members, and their order."""

    steps: int
    seconds: float
    stopped_early: bool
    nll: list[float]
    mse: list[float]
    order: list[int]


def clip_by_member(parameters: Iterable[nn.Parameter], max_norm: float) -> Float[Tensor, "e"]:
    """Scales every member's gradient to a norm of at most `max_norm`; returns the norms before.

    A norm over the whole ensemble would let one member's outlier slow the others.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    scale = (max_norm / (norm + 1e-12)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.ndim - 1)))
    return norm


class Trainer:
    """The state of a fit: everything that a checkpoint holds, and the step that moves it."""

    def __init__(
        self,
        network: GaussianEnsemble,
        objective: Objective,
        train: Samples,
        held_out: Samples,
        generator: torch.Generator,
        *,
        batch_size: int = 256,
        resampling: Resampling = "shared",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
        steps: int = 1,
        clip_norm: float = 1000.0,
    ) -> None:
        self.network, self.objective = network, objective
        self.train, self.held_out = train.like(network), held_out.like(network)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.generator = generator
        rows = objective.rows
        shared = rows is None and resampling == "shared"
        if rows is None:
            rows = resample(len(train.x), network.members, resampling, generator)
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        order = torch.Generator(generator.device).manual_seed(int(seed))
        self.batches = Batches(rows, batch_size, order, shared=shared)
        self.best = BestMembers(network)
        self.step = 0
        self.averages = Averages()
        self.counts: dict[str, Tensor] = {}
        self.skipped_steps = SkippedSteps(network.members, generator.device)
        self.slowed = False
        self.clip_norm = clip_norm
        lr_schedulers = torch.optim.lr_scheduler
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=learning_rate, weight_decay=weight_decay, fused=True
        )
        self.by_step = (
            lr_schedulers.CosineAnnealingLR(self.optimizer, steps, 0.01 * learning_rate)
            if schedule == "cosine"
            else None
        )
        self.by_score = (
            lr_schedulers.ReduceLROnPlateau(self.optimizer, factor=0.3, patience=5)
            if schedule == "plateau"
            else None
        )

    def train_step(self) -> None:
        rows = next(self.batches)
        if self.batches.shared:
            members = self.network.members
            x = self.train.x[rows[0]].expand(members, -1, -1)
            y = self.train.y[rows[0]].expand(members, -1, -1)
        else:
            x, y = self.train.x[rows], self.train.y[rows]
        with self.network.dropping_out(self.generator):
            loss, metrics = self.objective(self.network, x, y, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        norm = clip_by_member(self.parameters, self.clip_norm)
        self.skipped_steps.skip(self.parameters, loss.detach(), norm)
        self.optimizer.step()
        if self.by_step is not None:
            self.by_step.step()
        self.step += 1
        self._add("train/loss", loss.detach())
        self._add("train/gradient_norm", norm)
        for name, value in metrics.items():
            self._add(f"train/{name}", value)
        for name, value in self.objective.after_step(
            self.network, (x, y), self.step, self.generator
        ).items():
            self._add(f"outer/{name}", value)

    def _add(self, name: str, value: Tensor) -> None:
        """Notes a figure of this step.

        Whole numbers are counts, whose running totals are logged; the rest is averaged over the
        steps in which it was finite.
        """
        if value.is_floating_point():
            self.averages.add(name, value)
        else:
            self.counts[name] = self.counts.get(name, torch.zeros_like(value)) + value

    def evaluate(self, names: Sequence[str]) -> dict[str, float]:
        """Held-out metrics and the averages of the training metrics since the last evaluation.

        Raises:
            TrainingDiverged: a number that is not finite in what a checkpoint would hold, a member
                whose steps are all left out, or a held-out error without bound.
        """
        self.check_finite()
        self.skipped_steps.check(self.step, self._cause)
        self.objective.calibrate(self.network, *self.held_out)
        if self.network.held_share:
            self._set_held_std()
        metrics = held_out_metrics(self.network, *self.held_out)
        check_metrics(self.step, self.held_out.y, metrics["nll"], metrics["mse"], self._cause)
        score = metrics["mse" if self.objective.selects_by == "mse" else "bounded_nll"]
        self.best.update(self.network, score)
        if self.by_score is not None:
            self.by_score.step(score.mean().item())
        rmse = metrics["squared_error"].mean(0).sqrt().tolist()
        logged = {f"held_out/{k}": metrics[k].mean().item() for k in ("nll", "mse")}
        logged |= {f"held_out_rmse/{name}": v for name, v in zip(names, rmse, strict=True)}
        for name in ("nll", "mse"):
            logged |= {
                f"held_out_{name}/member_{e}": v for e, v in enumerate(metrics[name].tolist())
            }
        logged |= self.averages.take()
        logged["train/skipped_steps"] = self.skipped_steps.total.sum().item()
        logged |= {name: total.sum().item() for name, total in self.counts.items()}
        logged["train/learning_rate"] = self.optimizer.param_groups[0]["lr"]
        return logged

    def _set_held_std(self) -> None:
        """To the deviation of held-out residuals or that of training ones, whichever is larger.

        A sparse target may not move at all in a small held-out part.
        """
        few = Samples(*(part[:: -(-len(part) // CHUNK)] for part in self.train))
        found = [
            held_out_metrics(self.network, *part)["squared_error"] for part in (few, self.held_out)
        ]
        self.network.set_std(torch.maximum(*found).sqrt(), held_only=True)

    def _widen_std(self) -> None:
        """So that in no dimension the standardised errors of held-out rows are larger than 1.

        Beside sparse targets the rows that move are few, and noise that was fitted to them is
        smaller than that of other rows.
        """
        z = standardized_square(self.network, *self.held_out)
        self.network.widen_std(z.sqrt().clamp(min=1.0))

    def check_finite(self) -> None:
        """Waits once for the device.

        Raises:
            TrainingDiverged: a number that is not finite in what a checkpoint would hold.
        """
        moments = [v for state in self.optimizer.state.values() for v in state.values()]
        others = [*moments, *self.objective.state().values()]
        check_finite(self.step, self.network, others, self._cause)

    def _cause(self) -> str:
        return likely_cause(self.optimizer.param_groups[0]["lr"], self.train.y)

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies the learning rate by `factor`, now and for the rest of the schedule."""
        self.slowed = True
        self.optimizer.param_groups[0]["lr"] *= factor
        if self.by_step is not None:
            self.by_step.base_lrs = [factor * lr for lr in self.by_step.base_lrs]
            self.by_step.eta_min *= factor
        self.objective.scale_learning_rate(factor)

    def stale(self, patience: int | None) -> bool:
        """Whether no member has made progress for `patience` evaluations."""
        return patience is not None and self.best.stale >= patience

    def finish(self, seconds: float, stopped_early: bool) -> FitResult:
        self.best.restore(self.network)
        if self.network.held_share:
            self._widen_std()
        metrics = held_out_metrics(self.network, *self.held_out)
        return FitResult(
            steps=self.step,
            seconds=seconds,
            stopped_early=stopped_early,
            nll=metrics["nll"].tolist(),
            mse=metrics["mse"].tolist(),
            order=self.best.score.argsort().tolist(),
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that decides how the fit goes on: tensors (not copied), and plain values."""
        tensors = {f"network.{k}": v.detach() for k, v in self.network.named_parameters()}
        for i, p in enumerate(self.parameters):
            tensors |= {f"optimizer.{i}.{k}": v for k, v in self.optimizer.state[p].items()}
        tensors |= {f"best.{k}": v for k, v in self.best.state().items()}
        tensors |= {f"batches.{k}": v for k, v in self.batches.state().items()}
        tensors |= {f"objective.{k}": v for k, v in self.objective.state().items()}
        tensors |= {f"counts.{k}": v for k, v in self.counts.items()}
        tensors |= {f"averages.{k}": v for k, v in self.averages.state().items()}
        tensors |= {f"skipped_steps.{k}": v for k, v in self.skipped_steps.state().items()}
        tensors["generator"] = self.generator.get_state()
        schedulers = {
            name: {k: v for k, v in s.state_dict().items() if isinstance(v, (int, float, list))}
            for name, s in (("by_step", self.by_step), ("by_score", self.by_score))
            if s is not None
        }
        lr = self.optimizer.param_groups[0]["lr"]
        plain = {"step": self.step, "lr": lr, "slowed": self.slowed, "schedulers": schedulers}
        return tensors, plain

    def load_state(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes on from `state()`, whose tensors become the fit's own."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        with torch.no_grad():
            for name, p in self.network.named_parameters():
                p.copy_(tensors[f"network.{name}"])
        for i, p in enumerate(self.parameters):
            self.optimizer.state[p] = part(f"optimizer.{i}.")
        self.best.load_state(part("best."))
        self.batches.load_state({k: v.cpu() for k, v in part("batches.").items()})
        self.objective.load_state(part("objective."))
        self.counts = part("counts.")
        self.averages.load_state(part("averages."))
        self.skipped_steps.load_state(part("skipped_steps."))
        self.generator.set_state(tensors["generator"].cpu())
        self.step, self.slowed = state["step"], state["slowed"]
        self.optimizer.param_groups[0]["lr"] = state["lr"]
        for name, saved in state["schedulers"].items():
            getattr(self, name).load_state_dict(saved)

    def save(self, folder: Path) -> None:
        """Writes a checkpoint.

        Raises:
            TrainingDiverged: a number in it would not be finite. OSError: it cannot be written.
        """
        self.check_finite()
        save_checkpoint(folder, *self.state())

    def load(self, folder: Path) -> None:
        """Continues from the folder's checkpoint; from the start where there is none yet.

        Raises:
            InputError: a checkpoint that is damaged, or of another network.
        """
        loaded = load_checkpoint(folder, str(self.train.x.device))
        if loaded is None:
            return
        try:
            self.load_state(*loaded)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"the checkpoint in {folder} is of another run ({one_line(error)}); start a new "
                "run in another folder"
            ) from None
