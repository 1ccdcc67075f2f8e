"""An optimiser's moments, handed from one fit of a network to the next."""

from mbrl_bilevel.nested_state import State, load_moments, moments
from mbrl_bilevel.training.loop import Callback, Training
from mbrl_bilevel.training.trainer import Trainer


class KeptMoments(Callback):
    """Begins each fit of one network with the moments of AdamW at the end of the fit before.

    They are those of the last step, while each member goes on from its best held-out weights.
    """

    def __init__(self) -> None:
        self.state: State = {}
        """Moments after the latest fit; empty before the first."""

    def on_start(self, training: Training) -> None:
        load_moments(self._trainer(training).optimizer, self.state)

    def on_success(self, training: Training) -> None:
        found = moments(self._trainer(training).optimizer)
        self.state = {name: value.clone() for name, value in found.items()}

    @staticmethod
    def _trainer(training: Training) -> Trainer:
        trainer = training.trainable
        assert isinstance(trainer, Trainer)
        return trainer
