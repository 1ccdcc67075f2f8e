"""Policy updates as CUDA graphs: a hundred small kernels are started by one call.

On a GPU an update of these networks takes less time than starting its kernels one by one. On the
CPU there is nothing to capture, and the products are nearly all of the work.
"""

import warnings

import torch

from mbrl_bilevel.agents.policy_updates import SoftActorCritic
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.files import one_line

WARM_UP = 3  # updates before capture: libraries choose kernels and allocate workspaces in them

Metrics = dict[str, torch.Tensor]


class _Graph:
    """One captured update, with the tensors that it reads and those that it writes."""

    def __init__(
        self, learner: SoftActorCritic, batch: Batch, imitate: bool, behaviour: Batch | None
    ) -> None:
        # A graph reads fixed addresses: each batch is copied to where the first one lay.
        self.batch = Batch(*(column.clone() for column in batch))
        self.behaviour = None if behaviour is None else Batch(*(c.clone() for c in behaviour))
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(learner.generator)  # fresh noise at every replay
        with torch.cuda.graph(self.graph):  # records; nothing is computed yet
            self.metrics = learner.update(self.batch, imitate=imitate, behaviour=self.behaviour)

    def replay(self, batch: Batch, behaviour: Batch | None) -> Metrics:
        for ours, given in zip(self.batch, batch, strict=True):
            ours.copy_(given)
        if self.behaviour is not None and behaviour is not None:
            for ours, given in zip(self.behaviour, behaviour, strict=True):
                ours.copy_(given)
        self.graph.replay()
        # Copies: the next replay writes to the same place.
        return {name: value.clone() for name, value in self.metrics.items()}


class CudaGraphUpdate:
    """`SoftActorCritic.update`, captured after a few calls of each kind and size, then replayed.

    The calls before are updates like any other, on a stream of their own, as capture demands. Where
    it fails, updates go on without, with one UserWarning.
    """

    def __init__(self, learner: SoftActorCritic) -> None:
        self.learner, self.failed = learner, False
        self.stream = torch.cuda.Stream(learner.generator.device)
        self.calls: dict[tuple[object, ...], int] = {}
        self.graphs: dict[tuple[object, ...], _Graph] = {}

    def __call__(
        self, batch: Batch, *, imitate: bool = False, behaviour: Batch | None = None
    ) -> Metrics:
        # Shapes and branches are frozen in a graph, so each combination has one of its own.
        rows = 0 if behaviour is None else len(behaviour.reward)
        kind = len(batch.reward), imitate, rows
        if kind in self.graphs:
            return self.graphs[kind].replay(batch, behaviour)
        self.calls[kind] = self.calls.get(kind, 0) + 1
        if self.calls[kind] > WARM_UP and not self.failed:
            try:
                self.graphs[kind] = _Graph(self.learner, batch, imitate, behaviour)
            except RuntimeError as error:
                # A driver or device that cannot capture is no reason to end a training.
                self.failed = True
                warnings.warn(
                    f"this GPU does not capture updates ({one_line(error)}): they go on kernel by "
                    "kernel, slower",
                    stacklevel=2,
                )
            else:
                return self.graphs[kind].replay(batch, behaviour)
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            metrics = self.learner.update(batch, imitate=imitate, behaviour=behaviour)
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
        return metrics

    def forget(self) -> None:
        """Captures anew: after tensors were replaced, or a rate that graphs hold was changed."""
        self.calls, self.graphs = {}, {}
