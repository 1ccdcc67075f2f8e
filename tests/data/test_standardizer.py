import numpy as np
import pytest
import torch

from mbrl_bilevel.data.standardizer import Standardizer
from mbrl_bilevel.errors import InputError


def test_mean_and_deviation_are_those_of_numpy() -> None:
    values = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    standardizer = Standardizer(3).fit(values)
    reference = values.double().numpy()
    np.testing.assert_allclose(standardizer.mean, reference.mean(0), rtol=1e-6)
    np.testing.assert_allclose(standardizer.std, reference.std(0), rtol=1e-6)
    z = standardizer.standardize(values)
    np.testing.assert_allclose(z, (reference - reference.mean(0)) / reference.std(0), atol=1e-5)
    torch.testing.assert_close(standardizer.restore(z), values)


def test_a_large_offset_does_not_spoil_the_deviation() -> None:
    """In float32 sums, 1e6 + {0, 1} over 200,000 rows would lose the deviation of 0.5."""
    values = 1e6 + torch.arange(200_000).remainder(2).float()[:, None]
    standardizer = Standardizer(1).fit(values)
    # 0.5 against a scale of 1e6 is 5e-7: below the floor, so taken for constant.
    assert standardizer.std.item() == 1.0
    standardizer.fit(values - 1e6 + 1e5)
    assert standardizer.std.item() == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("constant", [0.0, 1e-12, 0.1, -1e4, 3e7])
def test_a_constant_dimension_is_only_shifted(constant: float) -> None:
    values = torch.full((1000, 1), constant)
    standardizer = Standardizer(1).fit(values)
    assert standardizer.std.item() == 1.0
    assert standardizer.standardize(values).abs().max() <= abs(constant) * 1e-6


def test_small_units_are_no_constants() -> None:
    values = 1e-9 * torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    assert Standardizer(1).fit(values).standardize(values).std().item() == pytest.approx(1, 1e-3)


def test_saved_with_the_model() -> None:
    fitted = Standardizer(2).fit(torch.randn(9, 2, generator=torch.Generator().manual_seed(0)))
    other = Standardizer(2)
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other.mean, fitted.mean)
    assert torch.equal(other.std, fitted.std)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(0, 2), "shape \\[0, 2\\]"),
        (torch.zeros(4, 3), "shape \\[4, 3\\]"),
        (torch.tensor([[0.0, float("nan")]]), "NaN or Inf"),
    ],
)
def test_what_cannot_be_fitted(values: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Standardizer(2).fit(values)
