"""The box of actions: clamping to it, and whether recorded actions mean the same in another."""

from collections.abc import Sequence

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError

ROUNDING = 1e-5  # of bounds, which may have been float32


def clamp_to(
    act: Float[Tensor, "*s a"], low: Float[Tensor, "#a"], high: Float[Tensor, "#a"]
) -> Float[Tensor, "*s a"]:
    """Actions clamped to [low, high], in their own dtype and on their own device."""
    return act.clamp(low.to(act), high.to(act))


def require_same_box(
    recorded: Sequence[Sequence[float]] | None, box: Box, whose: str, env: str
) -> None:
    """Refuses actions recorded in another finite box than that of the environment called `env`.

    They went through a wrapper that is not on record: the same number is another action there.
    `recorded` are the lowest and highest actions by the data set's word, of `whose`, such as
    "model in runs/a"; None, or bounds that are not finite (as of ClipAction), tell nothing.

    Raises:
        InputError: the boxes differ.
    """
    if recorded is None:
        return
    found, expected = np.array(recorded), np.stack([box.low, box.high])
    if not np.isfinite(found).all() or np.allclose(found, expected, ROUNDING, ROUNDING):
        return
    raise InputError(
        f"the {whose} has actions recorded in the box {_text(found)}, those of {env} lie in "
        f"{_text(expected)}, as if a wrapper that is not on record had rescaled them: register the "
        "wrapped environment under an id of its own and collect there"
    )


def _text(bounds: np.ndarray) -> str:
    low, high = bounds
    if np.ptp(low) == 0 and np.ptp(high) == 0:
        return f"[{low[0]:g}, {high[0]:g}]"
    return " to ".join("[" + ", ".join(f"{v:g}" for v in bound) + "]" for bound in bounds)
