"""Products of float32 matrices by oneDNN: no less exact, or not used."""

import pytest
import torch

from mbrl_bilevel import products

switch = getattr(torch.backends.mkldnn, "matmul", None)
needs_switch = pytest.mark.skipif(switch is None, reason="a torch without the switch")


def test_fast_products_are_about_as_exact_as_plain_ones():
    a = torch.randn(4, 64, 300, generator=torch.Generator().manual_seed(1))
    b = torch.randn(4, 300, 128, generator=torch.Generator().manual_seed(2))
    exact = a.double() @ b.double()
    plain = (a @ b - exact).abs().max()
    products.fast_products()
    assert (a @ b - exact).abs().max() <= 8 * plain


@needs_switch
def test_they_are_taken_back():
    products.plain_products()
    assert not products.are_fast()
    products.fast_products()
    products.plain_products()
    assert not products.are_fast()


@needs_switch
def test_inexact_products_are_not_used(monkeypatch):
    class Coarse:
        """A CPU that rounds to bfloat16 once it is allowed to."""

        fp32_precision = "ieee"

    coarse = Coarse()
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", coarse)
    exact = torch.Tensor.__matmul__

    def rounded(a, b):
        if coarse.fp32_precision == "bf16" and a.dtype == torch.float32:
            return exact(a.bfloat16(), b.bfloat16()).float()
        return exact(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    products.fast_products()
    assert not products.are_fast()
