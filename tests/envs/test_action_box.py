"""Boxes of recorded actions beside those of environments."""

import numpy as np
import pytest
from gymnasium.spaces import Box

from mbrl_bilevel.envs.action_box import require_same_box
from mbrl_bilevel.errors import InputError

BOX = Box(np.array([-0.1, -2.0], np.float32), np.array([0.1, 2.0], np.float32))


@pytest.mark.parametrize(
    "recorded",
    [None, ([-0.1, -2.0], [0.1, 2.0]), ([-np.inf, -np.inf], [np.inf, np.inf])],
    ids=["not on record", "equal but for rounding", "of ClipAction"],
)
def test_what_tells_of_no_other_scale_passes(recorded) -> None:
    require_same_box(recorded, BOX, "data set x/y-v0", "Own-v0")


@pytest.mark.situation("refused")
def test_another_box_is_named_beside_the_environments() -> None:
    said = r"data set x/y-v0 has .* \[-1, 1\], those of Own-v0 lie in \[-0.1, -2\] to \[0.1, 2\]"
    with pytest.raises(InputError, match=said):
        require_same_box(([-1.0, -1.0], [1.0, 1.0]), BOX, "data set x/y-v0", "Own-v0")
