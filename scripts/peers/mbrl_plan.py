"""A planning step of mbrl-lib: its trajectory optimizer in its ModelEnv."""

from collections.abc import Callable
from typing import Any

import numpy as np
import omegaconf
import torch
from mbrl.planning import TrajectoryOptimizer

from mbrl_bilevel.scripts.peers.mbrl_env import model_env
from mbrl_bilevel.scripts.peers.protocol import Spec, serve
from mbrl_bilevel.scripts.peers.sizes import ACT, OBS


def prepare(spec: Spec) -> Callable[[], object]:
    env = model_env(spec, "fixed_model")
    box = np.ones(ACT, dtype=np.float32)
    planner = TrajectoryOptimizer(_optimizer(spec), -box, box, spec["horizon"])
    obs = torch.randn(OBS, generator=torch.Generator().manual_seed(spec["seed"])).numpy()

    def returns(actions: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = env.evaluate_action_sequences(actions, obs, spec["particles"])
        return found

    return lambda: planner.optimize(returns)


def _optimizer(spec: Spec) -> Any:
    """Our own planners' settings, as far as the library has them."""
    settings: dict[str, Any] = {
        "_target_": "mbrl.planning.CEMOptimizer",
        "num_iterations": spec["iterations"],
        "elite_ratio": spec["elites"] / spec["samples"],
        "population_size": spec["samples"],
        "alpha": 0.1,
        "device": "cpu",
        "lower_bound": "???",
        "upper_bound": "???",
    }
    if spec["planner"] == "cem":
        settings["return_mean_elites"] = True
    else:
        settings |= {
            "_target_": "mbrl.planning.ICEMOptimizer",
            "population_decay_factor": 1.0,
            "colored_noise_exponent": 2.0,
            "keep_elite_frac": 0.3,
        }
    return omegaconf.OmegaConf.create(settings)


if __name__ == "__main__":
    serve(prepare, "mbrl", "torch")
