import numpy as np
import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.colored_noise import colored_noise


def noise(n: int, steps: int, beta: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return colored_noise((n,), steps, beta, generator, dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_the_spectrum_falls_as_f_to_the_minus_beta(beta: float) -> None:
    n, steps = 4000, 64
    power = np.abs(np.fft.rfft(noise(n, steps, beta).numpy(), axis=-1)) ** 2
    frequency = np.fft.rfftfreq(steps)
    slope = np.polyfit(np.log(frequency[1:-1]), np.log(power.mean(0)[1:-1]), 1)[0]
    # A mean of n exponentials has the relative error n^-1/2 = 0.016; a slope over 31 frequencies
    # whose logarithms spread by about 0.85 has the error 0.016 / (31^1/2 * 0.85) = 0.0034.
    assert slope == pytest.approx(-beta, abs=5 * 0.0034)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_every_step_has_mean_zero_and_variance_one(steps: int, beta: float) -> None:
    n = 40_000
    sample = noise(n, steps, beta)
    assert sample.shape == (n, steps)
    # Standard errors n^-1/2 = 0.005 and (2/n)^1/2 = 0.007; the largest of up to 30: 4.5 errors.
    assert sample.mean(0).abs().max() < 4.5 * 0.005
    assert (sample.square().mean(0) - 1).abs().max() < 4.5 * 0.00708


def test_covariance_in_time_is_the_transform_of_the_spectrum() -> None:
    steps, beta = 12, 2.0
    sample = noise(200_000, steps, beta)
    power = np.maximum(np.abs(np.fft.fftfreq(steps)), 1 / steps) ** -beta
    expected = np.fft.ifft(power / power.mean()).real
    measured = (sample[:, :1] * sample).mean(0).numpy()
    np.testing.assert_allclose(measured, expected, atol=5 * (2 / 200_000) ** 0.5)


def test_zero_beta_is_white() -> None:
    sample = noise(50_000, 8, 0.0)
    covariance = sample.T @ sample / len(sample)
    torch.testing.assert_close(
        covariance, torch.eye(8, dtype=torch.float64), rtol=0, atol=5 * (2 / 50_000) ** 0.5
    )


def test_leading_axes_are_independent_and_the_seed_decides() -> None:
    first = colored_noise((3, 2), 5, 1.0, torch.Generator().manual_seed(4))
    again = colored_noise((3, 2), 5, 1.0, torch.Generator().manual_seed(4))
    other = colored_noise((3, 2), 5, 1.0, torch.Generator().manual_seed(5))
    assert first.shape == (3, 2, 5)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    rows = first.flatten(0, 1)
    assert len(rows.unique(dim=0)) == 6


@pytest.mark.parametrize(("steps", "beta"), [(0, 1.0), (3, -1.0), (3, float("nan"))])
def test_bad_arguments(steps: int, beta: float) -> None:
    with pytest.raises(InputError):
        noise(1, steps, beta)
