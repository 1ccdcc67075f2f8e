"""Figures of a learned reward while train-model runs."""

from matplotlib.figure import Figure

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.evaluation.figures import save
from mbrl_bilevel.evaluation.noise_figures import noise_against_truth, precision_map
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.training.loop import Callback, Training
from mbrl_bilevel.training.objective import Objective
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples

DRAW_EVERY = 10  # evaluations between two figures of the learned reward in TensorBoard


class RewardFigures(Callback):
    """The learned U and the noise: in TensorBoard now and then, as files at the end."""

    def __init__(
        self, objective: Objective, model: DynamicsModel, held_out: Transitions, folder: RunFolder
    ) -> None:
        self.objective, self.model, self.folder = objective, model, folder
        self.held = Samples(*model.encode(held_out))
        self.evaluations = 0

    def after_step(self, training: Training) -> None:
        if training.metrics is None:
            return
        self.evaluations += 1
        if self.evaluations % DRAW_EVERY == 0:
            for name, figure in self._draw().items():
                self.folder.tensorboard.add_figure(f"reward/{name}", figure, training.step)

    def save(self) -> None:
        """Draws the model as it is now."""
        for name, figure in self._draw().items():
            save(figure, self.folder.figures() / f"{name}.png")

    def median_precision(self) -> dict[str, float] | None:
        """Of each target dimension, the median of the learned U_ii(x) over the held-out inputs.

        None for an objective that learns no U.
        """
        if not isinstance(self.objective, TwoLevel):
            return None
        U = self.objective.precision_diagonal(self.model.network, self.held.x)
        if U is None:
            return None
        # A U that is the same for all rows is one row in memory: the median would be garbage.
        median = U.contiguous().median(0).values
        return dict(zip(self.model.informative_names, median.tolist(), strict=True))

    def _draw(self) -> dict[str, Figure]:
        if not isinstance(self.objective, TwoLevel):
            return {}
        names = self.model.informative_names
        drawn = {"noise": noise_against_truth(self.model.network, *self.held, names)}
        U = self.objective.precision_diagonal(self.model.network, self.held.x)
        if U is not None:
            drawn["learned_U"] = precision_map(U, names)
        return drawn
