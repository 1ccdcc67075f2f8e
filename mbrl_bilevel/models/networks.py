"""An ensemble of multilayer perceptrons, one batched matrix product per layer."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl_bilevel.errors import InputError


class EnsembleLinear(nn.Module):
    """E linear layers side by side: y[e] = x[e] @ weight[e] + bias[e].

    Weights start normal with standard deviation 1 / sqrt(inputs) (LeCun et al. 1998), biases at 0.
    """

    def __init__(
        self, members: int, inputs: int, outputs: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        weight = torch.empty(members, inputs, outputs)
        if not weight.is_meta:  # torch would import 900 modules, for seconds, to draw nothing
            nn.init.normal_(weight, 0.0, 1.0 / math.sqrt(inputs), generator=generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: Float[Tensor, "e b i"]) -> Float[Tensor, "e b j"]:
        return torch.baddbmm(self.bias, x, self.weight)

    def select(self, members: Int[Tensor, "k"]) -> "EnsembleLinear":
        """A layer of copies of the named members, in that order."""
        chosen = copy.copy(self)
        chosen._parameters = {
            "weight": nn.Parameter(self.weight.detach()[members]),
            "bias": nn.Parameter(self.bias.detach()[members]),
        }
        return chosen


class EnsembleMLP(nn.Module):
    """E perceptrons. A shared input [B, i] is shown to every member.

    Dynamics models have SiLU layers; actors and critics of the literature have ReLU.

    Args:
        layer_norm: normalises every hidden layer's output, without scale and bias of its own (Ba et
            al. 2016).
        dropout: share of the hidden units' outputs that are set to 0, and the others scaled up by
            1 / (1 - dropout), inside of `dropping_out` and nowhere else.

    Raises:
        InputError: a hidden layer without units, or a dropout share outside [0, 1).
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        generator: torch.Generator | None = None,
        *,
        activation: Callable[[Tensor], Tensor] = nn.functional.silu,
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise InputError(f"a dropout of {dropout}: choose a share from 0 to below 1")
        if any(units < 1 for units in hidden):
            raise InputError(
                f"hidden layers of {' '.join(map(str, hidden))} units: each needs at least 1"
            )
        self.members, self.activation = members, activation
        self.layer_norm, self.dropout = layer_norm, dropout
        self._dropout_generator: torch.Generator | None = None
        sizes = [inputs, *hidden, outputs]
        self.layers = nn.ModuleList(
            EnsembleLinear(members, i, j, generator) for i, j in pairwise(sizes)
        )

    def forward(self, x: Float[Tensor, "*e b i"]) -> Float[Tensor, "m b j"]:
        out: Tensor = self.layers[-1](self.features(x))
        return out

    def features(self, x: Float[Tensor, "*e b i"]) -> Float[Tensor, "m b h"]:
        """The last hidden layer, or the input where there is none."""
        if x.ndim == 2:
            x = x.expand(self.members, *x.shape)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
            if self.layer_norm:
                x = nn.functional.layer_norm(x, x.shape[-1:])
            if self._dropout_generator is not None and self.dropout:
                x = drop(x, self.dropout, self._dropout_generator)
        return x

    @contextmanager
    def dropping_out(self, generator: torch.Generator) -> Iterator[None]:
        """Dropout is on inside of this context, as in training; predictions are without."""
        self._dropout_generator = generator
        try:
            yield
        finally:
            self._dropout_generator = None

    def select(self, members: Int[Tensor, "k"]) -> "EnsembleMLP":
        """A network of copies of the named members, in that order."""
        chosen = copy.copy(self)
        layers = (layer.select(members) for layer in self.linear_layers())
        chosen._modules = {"layers": nn.ModuleList(layers)}
        chosen.members, chosen._dropout_generator = len(members), None
        return chosen

    @torch.no_grad()
    def copy_from(self, one: "EnsembleMLP") -> None:
        """Makes every member the same as the only member of `one`."""
        for ours, theirs in zip(self.parameters(), one.parameters(), strict=True):
            ours.copy_(theirs.expand_as(ours))

    def linear_layers(self) -> list["EnsembleLinear"]:
        """From the input to the output."""
        return [layer for layer in self.layers if isinstance(layer, EnsembleLinear)]


def drop(x: Float[Tensor, "*s h"], share: float, generator: torch.Generator) -> Tensor:
    """Dropout (Srivastava et al. 2014), with a fixed count of units drawn with replacement.

    A draw for every unit would take longer than a layer where few units are dropped.
    """
    units = x.numel()
    # A unit is missed by all draws, each 1 of `units`, with probability 1 - share.
    draws = round(-units * math.log1p(-share))
    drawn = torch.randint(units, (draws,), generator=generator, device=x.device)
    return (x / (1 - share)).flatten().index_fill(0, drawn, 0.0).view_as(x)
