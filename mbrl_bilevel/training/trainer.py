"""The state of a fit, and the gradient step that moves it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import one_line
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.nested_state import State, load_moments, moments, nest, part
from mbrl_bilevel.training.averages import Averages
from mbrl_bilevel.training.batches import Batches, resample
from mbrl_bilevel.training.checkpoint import load_checkpoint, save_checkpoint
from mbrl_bilevel.training.clipping import clip_by_member
from mbrl_bilevel.training.divergence import SkippedSteps, check_finite, check_metrics, likely_cause
from mbrl_bilevel.training.early_stopping import PairedTest
from mbrl_bilevel.training.held_out import (
    CHUNK,
    BestMembers,
    held_out_metrics,
    standardized_square,
)
from mbrl_bilevel.training.learning_rate import LearningRate
from mbrl_bilevel.training.objective import Objective
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


@dataclass(frozen=True)
class FitResult:
    """How a fit ended: held-out metrics of the restored best members, and their order."""

    steps: int
    seconds: float
    stopped_early: bool
    nll: list[float]
    mse: list[float]
    order: list[int]


class Trainer:
    """The state of a fit: everything that a checkpoint holds, and the step that moves it.

    Args:
        names: of the targets, for metrics; default: their numbers.
    """

    can_save = True  # a checkpoint leads back to any step

    def __init__(
        self,
        network: GaussianEnsemble,
        objective: Objective,
        train: Samples,
        held_out: Samples,
        generator: torch.Generator,
        settings: FitSettings = FitSettings(),
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        self.network, self.objective = network, objective
        self.train, self.held_out = train.like(network), held_out.like(network)
        self.names = names or [str(i) for i in range(train.y.shape[1])]
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.generator, self.clip_norm = generator, settings.clip_norm
        rows, resampling = objective.rows, settings.resampling
        shared = rows is None and resampling == "shared"
        if rows is None:
            rows = resample(len(train.x), network.members, resampling, generator)
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        order = torch.Generator(generator.device).manual_seed(int(seed))
        self.batches = Batches(rows, settings.batch_size, order, shared=shared)
        self.best = BestMembers(network)
        level = settings.progress_level
        self.paired = None if level is None else PairedTest(level)
        self.step = 0
        self.averages = Averages()
        self.counts: dict[str, Tensor] = {}
        self.skipped_steps = SkippedSteps(network.members, generator.device)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.learning_rate = LearningRate(self.optimizer, settings)

    @property
    def learning_rate_scaled(self) -> bool:
        return self.learning_rate.scaled

    def train_step(self) -> None:
        """One batch: loss per member, clipped gradients, AdamW; then the objective's own step."""
        rows = next(self.batches)
        if self.batches.shared:
            x = self.train.x[rows[0]].expand(self.network.members, -1, -1)
            y = self.train.y[rows[0]].expand(self.network.members, -1, -1)
        else:
            x, y = self.train.x[rows], self.train.y[rows]
        with self.network.dropping_out(self.generator):
            loss, metrics = self.objective(self.network, x, y, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        norm = clip_by_member(self.parameters, self.clip_norm)
        self.skipped_steps.skip(self.parameters, loss.detach(), norm)
        self.optimizer.step()
        self.learning_rate.after_step()
        self.step += 1
        for name, value in {"loss": loss.detach(), "gradient_norm": norm, **metrics}.items():
            self._add(f"train/{name}", value)
        outer = self.objective.after_step(self.network, (x, y), self.step, self.generator)
        for name, value in outer.items():
            self._add(f"outer/{name}", value)

    def _add(self, name: str, value: Tensor) -> None:
        """Notes a metric of this step.

        Whole numbers are counts, whose running totals are logged; the rest is averaged over the
        steps in which it was finite.
        """
        if value.is_floating_point():
            self.averages.add(name, value)
        else:
            self.counts[name] = self.counts.get(name, torch.zeros_like(value)) + value

    def metrics(self) -> dict[str, float]:
        """Held-out metrics and the averages of the training metrics since the last evaluation.

        Raises:
            TrainingDiverged: a number that is not finite in what a checkpoint would hold, a member
                whose steps are all skipped, or a held-out error without bound.
        """
        self.check_finite()
        self.skipped_steps.check(self.step, self._cause)
        self.objective.calibrate(self.network, *self.held_out)
        if self.network.held_share:
            self._set_held_std()
        selects_by = self.objective.selects_by
        by_row = None if self.paired is None else selects_by
        metrics = held_out_metrics(self.network, *self.held_out, by_row=by_row)
        check_metrics(self.step, self.held_out.y, metrics["nll"], metrics["mse"], self._cause)
        score = metrics["mse" if selects_by == "mse" else "bounded_nll"]
        self.best.update(self.network, score)
        if self.paired is not None:
            self.paired.update(metrics["row_score"].mean(0))
        self.learning_rate.after_evaluation(score.mean().item())
        rmse = metrics["squared_error"].mean(0).sqrt().tolist()
        logged = {f"held_out/{k}": metrics[k].mean().item() for k in ("nll", "mse")}
        logged |= {f"held_out_rmse/{name}": v for name, v in zip(self.names, rmse, strict=True)}
        for k in ("nll", "mse"):
            logged |= {f"held_out_{k}/member_{e}": v for e, v in enumerate(metrics[k].tolist())}
        logged |= self.averages.take()
        logged["train/skipped_steps"] = self.skipped_steps.total.sum().item()
        logged |= {name: total.sum().item() for name, total in self.counts.items()}
        logged["train/learning_rate"] = self.learning_rate.value
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
        return likely_cause(self.learning_rate.value, self.train.y)

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies the learning rate by `factor`, now and for the rest of the schedule."""
        self.learning_rate.scale(factor)
        self.objective.scale_learning_rate(factor)

    def finish(self, seconds: float, stopped_early: bool) -> FitResult:
        """Gives every member its best parameters back, and evaluates them."""
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

    def state(self) -> tuple[State, dict[str, Any]]:
        """All that decides how the fit goes on: tensors (not copied), and plain values."""
        parts = {
            "network": {k: v.detach() for k, v in self.network.named_parameters()},
            "optimizer": moments(self.optimizer),
            "best": self.best.state(),
            "batches": self.batches.state(),
            "objective": self.objective.state(),
            "counts": self.counts,
            "averages": self.averages.state(),
            "skipped_steps": self.skipped_steps.state(),
        }
        if self.paired is not None:
            parts["paired"] = self.paired.state()
        plain = {"step": self.step, "learning_rate": self.learning_rate.state()}
        return nest(parts) | {"generator": self.generator.get_state()}, plain

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Goes on from `state()`, whose tensors become the fit's own."""
        network = part(tensors, "network")
        with torch.no_grad():
            for name, p in self.network.named_parameters():
                p.copy_(network[name])
        self.optimizer.state.clear()  # before the first step there are none to load
        load_moments(self.optimizer, part(tensors, "optimizer"))
        self.best.load_state(part(tensors, "best"))
        if self.paired is not None:
            self.paired.load_state(part(tensors, "paired"))
        self.batches.load_state({k: v.cpu() for k, v in part(tensors, "batches").items()})
        self.objective.load_state(part(tensors, "objective"))
        self.counts = part(tensors, "counts")
        self.averages.load_state(part(tensors, "averages"))
        self.skipped_steps.load_state(part(tensors, "skipped_steps"))
        self.generator.set_state(tensors["generator"].cpu())
        self.step = plain["step"]
        self.learning_rate.load_state(plain["learning_rate"])

    def snapshot(self) -> tuple[State, dict[str, Any]]:
        """A copy of `state()`."""
        tensors, plain = self.state()
        return {name: t.clone() for name, t in tensors.items()}, plain

    def restore(self, snapshot: tuple[State, dict[str, Any]]) -> None:
        """Goes back to a snapshot; the count of skipped steps goes on."""
        total = self.skipped_steps.total.clone()
        self.load_state(*snapshot)
        self.skipped_steps.total.copy_(total)

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
