"""Small real classification tables from scikit-learn, split anew for every seed."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError

TABLES = ("wine", "iris", "breast_cancer", "digits")
SHARES = (0.5, 0.25)  # inner level, outer level; the rest is for testing
MOST_ROWS = 900  # of a larger table each seed draws so many


class Labelled(NamedTuple):
    """Inputs and classes, one sample of the table per seed."""

    x: Float[Tensor, "e b d"]
    y: Int[Tensor, "e b"]


class Splits(NamedTuple):
    """Disjoint rows for the inner level, the outer level and testing."""

    inner: Labelled
    outer: Labelled
    test: Labelled
    classes: int


def load_table(name: str) -> tuple[Float[Tensor, "b d"], Int[Tensor, "b"]]:
    """Inputs, in the table's own units, and classes 0 ... k - 1.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError(
            "the classification tables come with scikit-learn, which is not installed; "
            'pip install "mbrl-bilevel[sanity]"'
        ) from error
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64)


def split(
    x: Float[Tensor, "b d"], y: Int[Tensor, "b"], seeds: int, generator: torch.Generator
) -> Splits:
    """An own random split for every seed; inputs standardised by that seed's inner rows alone."""
    order = torch.rand(seeds, len(x), generator=generator).argsort(-1)[:, :MOST_ROWS]
    count = order.shape[1]
    sizes = [round(share * count) for share in SHARES]
    rows = order.split([*sizes, count - sum(sizes)], -1)
    fitted = x[rows[0]]
    mean, std = fitted.mean(1, keepdim=True), fitted.std(1, keepdim=True)
    std = torch.where(std > 0, std, 1.0)  # an input that is constant stays where it is
    inner, outer, test = (Labelled((x[index] - mean) / std, y[index]) for index in rows)
    return Splits(inner, outer, test, int(y.max()) + 1)
