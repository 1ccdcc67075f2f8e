"""Which library multiplies float32 matrices on the CPU."""

import torch


def fast_products() -> None:
    """Lets oneDNN multiply matrices on CPUs where that is faster and no less exact.

    torch multiplies float32 matrices by MKL, which leaves the wide units of some CPUs idle: on an
    AMD EPYC oneDNN is 1.6 to 2.3 times as fast. torch hands such products to oneDNN only where
    lower precision is allowed, so this allows it, looks whether the products are any less exact
    here, and takes it back if they are. A torch before 2.9 has no such switch.
    """
    products = getattr(torch.backends.mkldnn, "matmul", None)
    if products is None:
        return
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator).unbind()
    exact = a.double() @ b.double()
    before = (a @ b - exact).abs().max()
    products.fp32_precision = "bf16"
    if not (a @ b - exact).abs().max() <= 4 * before:
        plain_products()


def are_fast() -> bool:
    """Whether products are as `fast_products` leaves them, for processes to do as this one."""
    products = getattr(torch.backends.mkldnn, "matmul", None)
    return products is not None and products.fp32_precision == "bf16"


def plain_products() -> None:
    """Takes `fast_products` back: products as torch comes."""
    products = getattr(torch.backends.mkldnn, "matmul", None)
    if products is not None:
        products.fp32_precision = "ieee"
