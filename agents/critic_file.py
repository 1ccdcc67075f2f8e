"""The critics of a trained policy in one file: what states are worth under that policy."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.agents.actor import normalised_relu
from mbrl_bilevel.agents.policy_mean import PolicyMean
from mbrl_bilevel.agents.setting_groups import PolicySettings
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.networks import EnsembleMLP
from mbrl_bilevel.tensor_files import load_tensors, save_tensors

FILE = "critic.safetensors"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "normalised_relu": normalised_relu,
}


class CriticValue:
    """V(s) = min_i Q_i(s, pi(s)), in the environment's reward units, pi the policy's mean action.

    A termination that cost the policy something costs the same here.
    """

    def __init__(
        self, critic: EnsembleMLP, policy: PolicyMean, discount: float, reward_scale: float
    ) -> None:
        self.critic, self.policy = critic, policy
        self.discount, self.reward_scale = discount, reward_scale

    @torch.no_grad()
    def __call__(self, obs: Float[Tensor, "*s o"]) -> Float[Tensor, "*s"]:
        rows = obs.reshape(-1, obs.shape[-1]).to(self.policy.action_bias)
        q = self.critic(torch.cat([rows, self.policy.unit(rows)], -1)).squeeze(-1)
        # The smaller of both, as in the targets that they were trained by: their mean is too high
        # where the data are thin, which is where a plan would go.
        return (q.amin(0) / self.reward_scale).reshape(obs.shape[:-1]).to(obs)


def save_critic(folder: Path, critic: EnsembleMLP, settings: PolicySettings) -> None:
    """Replaces the folder's critics, which value unit actions at scaled rewards, by rename."""
    tensors = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    activation = "normalised_relu" if settings.critic_layer_norm else "relu"
    texts = {
        "discount": repr(settings.discount),
        "reward_scale": repr(settings.reward_scale),
        "activation": activation,
    }
    save_tensors(folder / FILE, tensors, texts)


def load_critic(folder: Path, policy: PolicyMean) -> CriticValue:
    """The value of the policy in a folder, by the critics beside it.

    Raises:
        InputError: none are there, or they are damaged or of a policy of other sizes.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"--terminal-value critic: {folder} holds no critics ({FILE}); name by --prior a run "
            "of `mbrl-bilevel train-agent` with --agent bc, mopo, sac or mbpo, or choose none"
        )
    try:
        tensors, texts = load_tensors(path, policy.action_bias.device)
        critic = _network(tensors, ACTIVATIONS[texts["activation"]], policy)
        discount, scale = float(texts["discount"]), float(texts["reward_scale"])
        if not (0 <= discount <= 1 and 0 < scale < float("inf")):
            raise ValueError(f"discount {discount} or reward scale {scale} cannot be")
    except (KeyError, RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"the critics {path} are damaged ({said}); train them again") from None
    return CriticValue(critic, policy, discount, scale)


def _network(
    tensors: dict[str, Tensor], activation: Callable[[Tensor], Tensor], policy: PolicyMean
) -> EnsembleMLP:
    """The perceptrons that these weights belong to; ValueError where they fit no policy."""
    layers = len(tensors) // 2
    weights = [tensors[f"layers.{i}.weight"] for i in range(layers)]
    if not weights or any(weight.ndim != 3 for weight in weights):
        raise ValueError("they hold no layers")
    # One NaN would make every plan's score NaN, far from its cause.
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError("they are not all finite")
    inputs, outputs = weights[0].shape[1], weights[-1].shape[2]
    if inputs != policy.obs_dim + policy.act_dim or outputs != 1:
        raise ValueError(f"{inputs} inputs and {outputs} outputs fit no policy beside them")
    hidden = [weight.shape[2] for weight in weights[:-1]]
    with torch.device(weights[0].device):
        critic = EnsembleMLP(len(weights[0]), inputs, hidden, 1, activation=activation)
    critic.load_state_dict(tensors)
    return critic.requires_grad_(False)
