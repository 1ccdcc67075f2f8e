"""Noise in time with a power spectrum f^-beta: smooth action sequences for sampling planners."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError


def colored_noise(
    shape: tuple[int, ...],
    steps: int,
    beta: float,
    generator: torch.Generator,
    *,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*s t"]:
    r"""Gaussian noise of `steps` time steps with power spectral density proportional to f^-beta.

    Independent sequences of the given leading `shape`, each stationary (around the circle of
    `steps`) with mean 0 and variance exactly 1 at every step; beta = 0 is white noise, 1 pink, 2
    red. The lowest frequency 0 gets the power of 1 / steps. On the generator's device.
    Source: Timmer and Koenig 1995, as used by Pinneri et al. 2020 (iCEM), section 3.1; there the
    variance leaves frequency 0 out.

    Raises:
        InputError: `steps` below 1, or `beta` negative or not finite.
    """
    if steps < 1:
        raise InputError(f"noise of {steps} steps: at least 1 is needed")
    if not 0 <= beta < float("inf"):
        raise InputError(f"noise exponent beta {beta}: it must be finite and not negative")
    device = generator.device
    frequency = torch.fft.rfftfreq(steps, dtype=dtype, device=device).clamp(min=1 / steps)
    power = frequency**-beta
    real = torch.zeros(len(frequency), dtype=torch.bool, device=device)
    real[0] = True  # frequency 0, and Nyquist's where steps is even, stand alone, without a partner
    if steps % 2 == 0:
        real[-1] = True
    total = torch.where(real, power, 2 * power).sum()
    scale = steps * (power / total).sqrt()
    normal = torch.randn(*shape, len(frequency), 2, generator=generator, device=device, dtype=dtype)
    paired = torch.view_as_complex(normal) * 0.5**0.5
    spectrum = scale * torch.where(real, torch.complex(normal[..., 0], 0 * normal[..., 0]), paired)
    return torch.fft.irfft(spectrum, n=steps)
