"""Passes of an ensemble without gradients: kept buffers, a block of rows at a time, no copies."""

import copy
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.networks import EnsembleLinear, EnsembleMLP

# Numbers in a block's hidden layer (512 KiB of float32): two of them stay in a core's cache.
BLOCK = 2**17


class InferenceMLP(nn.Module):
    """Some members of an `EnsembleMLP`, in that order, without gradients; weights are its own.

    A pass that takes memory anew for each layer takes a third longer, and so does one whose layers
    do not stay in the cache. What is returned is never overwritten.

    Raises:
        RuntimeError: by a call, where gradients are recorded.
    """

    def __init__(self, network: EnsembleMLP, members: list[int]) -> None:
        super().__init__()
        self.layers, self.members = network.linear_layers(), members
        self.activation, self.layer_norm = network.activation, network.layer_norm
        self.all_members = members == list(range(network.members))
        self._kept: list[Tensor] = []

    def forward(self, x: Float[Tensor, "*e b i"]) -> Float[Tensor, "m b j"]:
        if x.ndim == 2:
            x = x.expand(len(self.members), *x.shape)
        blocks = self._blocks(x)
        if blocks == 1:
            return self._pass(x)
        return torch.cat([self._pass(part) for part in x.tensor_split(blocks, 1)], 1)

    def _pass(self, x: Float[Tensor, "m b i"]) -> Float[Tensor, "m b j"]:
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            x = self._linear(layer, x, self._room(i % 2, x, layer))
            if self.activation is nn.functional.silu:
                x = nn.functional.silu(x, inplace=True)
            else:
                x = self.activation(x)
            if self.layer_norm:
                x = nn.functional.layer_norm(x, x.shape[-1:])
        return self._linear(last, x, x.new_empty(*x.shape[:2], last.weight.shape[-1]))

    def _linear(
        self,
        layer: EnsembleLinear,
        x: Float[Tensor, "m b i"],
        out: Float[Tensor, "m b j"],
    ) -> Float[Tensor, "m b j"]:
        if self.all_members:
            return torch.baddbmm(layer.bias, x, layer.weight, out=out)
        # To copy the members' weights into one batch takes longer than a loop over a few members.
        bias, weight = layer.bias.unbind(), layer.weight.unbind()
        for e, rows, into in zip(self.members, x.unbind(), out.unbind(), strict=True):
            torch.addmm(bias[e], rows, weight[e], out=into)
        return out

    def _room(self, index: int, x: Float[Tensor, "m b i"], layer: EnsembleLinear) -> Tensor:
        """The layer's output, in memory that the layer after the next will overwrite."""
        shape = (*x.shape[:2], layer.weight.shape[-1])
        size = math.prod(shape)
        fits = len(self._kept) > index and len(self._kept[index]) >= size
        if not fits or (self._kept[index].dtype, self._kept[index].device) != (x.dtype, x.device):
            self._kept[index : index + 1] = [x.new_empty(size)]
        return self._kept[index][:size].view(shape)

    def _blocks(self, x: Float[Tensor, "m b i"]) -> int:
        """Into how many blocks of about the same length the rows are split; on a GPU, none."""
        if x.is_cuda:
            return 1
        units = max((layer.weight.shape[-1] for layer in self.layers[:-1]), default=1)
        return max(1, round(x[..., 0].numel() * units / (BLOCK * torch.get_num_threads())))


def for_inference(network: GaussianEnsemble) -> GaussianEnsemble:
    """The same members, for passes without gradients; weights are the same tensors."""
    return InferenceNetwork().of(network, torch.arange(network.members))


class InferenceNetwork:
    """Chosen members of an ensemble as a network for passes without gradients, as they are now.

    Buffers are kept from one call to the next. A copy of this, and a pickle, is empty.
    """

    def __init__(self) -> None:
        self._parts: dict[str, InferenceMLP] = {}

    def of(self, network: GaussianEnsemble, members: Int[Tensor, "k"]) -> GaussianEnsemble:
        """The members in that order; weights are the network's own tensors, on a CPU."""
        if members.is_cuda:  # where a copy costs less than launches member by member
            return network.select(members)
        chosen, fast = members.tolist(), copy.copy(network)
        fast._modules = {
            name: self._part(name, part, chosen, members)
            for name, part in network._modules.items()
            if isinstance(part, EnsembleMLP)
        }
        if network.noise == "constant":
            fast._parameters = {"log_std": nn.Parameter(network.log_std.detach()[members])}
        fast.members = len(chosen)
        return fast

    def _part(self, name: str, part: EnsembleMLP, chosen: list[int], members: Tensor) -> nn.Module:
        if type(part) is not EnsembleMLP:
            return part if chosen == list(range(part.members)) else part.select(members)
        kept = self._parts.get(name)
        if kept is None or kept.layers != part.linear_layers() or kept.members != chosen:
            kept = self._parts[name] = InferenceMLP(part, chosen)
        return kept

    def __reduce__(self) -> tuple[type["InferenceNetwork"], tuple[()]]:
        return InferenceNetwork, ()
