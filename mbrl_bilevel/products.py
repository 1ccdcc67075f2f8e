"""How float32 matrices are multiplied on the CPU: by which library, and how exactly."""

from typing import Any, Literal

import torch
from torch import Tensor

from mbrl_bilevel.errors import InputError

Precision = Literal["float32", "bf16"]


def choose_products(precision: Precision, device: torch.device) -> str:
    """Chooses by `--precision`: `fast_products`, or factors rounded to bfloat16; says which.

    Raises:
        InputError: bf16 on a GPU, or on a CPU that does not multiply bfloat16 numbers.
    """
    if precision == "float32":
        fast_products()
        return "float32 products" + (" by oneDNN" if products_in_use() == "bf16" else "")
    if device.type != "cpu":
        raise InputError(
            f"--precision bf16 is for the CPU and this runs on {device}; leave it out, or add "
            "--device cpu"
        )
    bf16_products()
    return "products rounded to bfloat16"


def fast_products() -> None:
    """Lets oneDNN multiply matrices on CPUs where that is faster and no less exact.

    torch multiplies float32 matrices by MKL, which leaves the wide units of some CPUs idle: on an
    AMD EPYC oneDNN is 1.6 to 2.3 times as fast. torch hands such products to oneDNN only where
    lower precision is allowed, so this allows it, looks whether the products are any less exact
    here, and takes it back if they are. A torch before 2.9 has no such switch.
    """
    if not multiplies_bf16():
        use_products("bf16")


def bf16_products() -> None:
    """Rounds the factors of products to bfloat16, 8 bits of 24, and sums in float32.

    Weights, gradients and all other arithmetic stay float32.

    Raises:
        InputError: this CPU, or this torch, does not multiply bfloat16 numbers.
    """
    if not multiplies_bf16():
        raise InputError(
            "--precision bf16: this CPU does not multiply bfloat16 numbers (no avx512_bf16 or "
            "amx_bf16 in /proc/cpuinfo), or this torch cannot ask it to; leave it out"
        )
    use_products("bf16")


def multiplies_bf16() -> bool:
    """Whether products here are less exact once bfloat16 is allowed; it is not, afterwards."""
    plain_products()
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator).unbind()
    exact = a.double() @ b.double()
    plain = _error(a, b, exact)
    use_products("bf16")
    allowed = _error(a, b, exact)
    plain_products()
    return not allowed <= 4 * plain


def plain_products() -> None:
    """Products as torch comes."""
    use_products("ieee")


def products_in_use() -> str:
    """What `use_products` takes, for another process to do as this one."""
    switch = _switch()
    return "ieee" if switch is None else str(switch.fp32_precision)


def use_products(allowed: str) -> None:
    """Allows oneDNN to multiply as exactly as "ieee" float32, or as bfloat16, where it can."""
    switch = _switch()
    if switch is not None:
        switch.fp32_precision = allowed


def _switch() -> Any:
    """torch's switch of what oneDNN may do with products; torch before 2.9 has none."""
    return getattr(torch.backends.mkldnn, "matmul", None)


def _error(a: Tensor, b: Tensor, exact: Tensor) -> Tensor:
    return (a @ b - exact).abs().max()
