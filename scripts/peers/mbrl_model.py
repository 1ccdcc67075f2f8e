"""mbrl-lib's ensemble, of the same sizes."""

from typing import Any

from mbrl.models import GaussianMLP, OneDTransitionRewardModel

from mbrl_bilevel.scripts.peers.sizes import ACT, OBS


def model(network: dict[str, int], propagation: str | None = None) -> Any:
    """SiLU layers, Gaussian outputs, standardised inputs, changes of observation as targets."""
    ensemble = GaussianMLP(
        OBS + ACT,
        OBS,
        "cpu",
        num_layers=network["layers"],
        ensemble_size=network["members"],
        hid_size=network["units"],
        propagation_method=propagation,
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    return OneDTransitionRewardModel(ensemble, normalize=True, learned_rewards=False)
