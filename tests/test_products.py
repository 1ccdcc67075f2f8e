"""Products of float32 matrices by oneDNN: no less exact, or asked for."""

from types import SimpleNamespace

import pytest
import torch

from mbrl_bilevel import products
from mbrl_bilevel.errors import InputError

CPU = torch.device("cpu")
needs_switch = pytest.mark.skipif(
    getattr(torch.backends.mkldnn, "matmul", None) is None, reason="a torch without the switch"
)


@pytest.fixture(autouse=True)
def _plain_afterwards():
    yield
    products.plain_products()


class Switch:
    """torch's switch, on a CPU of which the test decides what it does."""

    fp32_precision = "ieee"


@pytest.fixture(params=["rounds", "exact"])
def cpu(request, monkeypatch):
    """A CPU that rounds to bfloat16 once it is allowed to, and one that never does."""
    switch, exact = Switch(), torch.Tensor.__matmul__

    def product(a, b):
        rounds = request.param == "rounds" and switch.fp32_precision == "bf16"
        if rounds and a.dtype == torch.float32:
            return exact(a.bfloat16(), b.bfloat16()).float()
        return exact(a, b)

    monkeypatch.setattr(torch.backends.mkldnn, "matmul", switch, raising=False)
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    return request.param


def test_fast_products_are_about_as_exact_as_plain_ones():
    a = torch.randn(4, 64, 300, generator=torch.Generator().manual_seed(1))
    b = torch.randn(4, 300, 128, generator=torch.Generator().manual_seed(2))
    exact = a.double() @ b.double()
    plain = (a @ b - exact).abs().max()
    products.fast_products()
    assert (a @ b - exact).abs().max() <= 8 * plain


def test_fast_products_are_those_of_onednn_where_it_does_not_round(cpu):
    said = products.choose_products("float32", CPU)
    assert products.products_in_use() == ("ieee" if cpu == "rounds" else "bf16")
    assert said == "float32 products" + ("" if cpu == "rounds" else " by oneDNN")


def test_bf16_is_refused_where_it_changes_nothing(cpu):
    if cpu == "rounds":
        assert products.choose_products("bf16", CPU) == "products rounded to bfloat16"
        assert products.products_in_use() == "bf16"
    else:
        with pytest.raises(InputError, match="does not multiply bfloat16"):
            products.choose_products("bf16", CPU)
        assert products.products_in_use() == "ieee"


def test_bf16_is_refused_on_a_gpu():
    with pytest.raises(InputError, match="--precision bf16 is for the CPU"):
        products.choose_products("bf16", torch.device("cuda"))


@needs_switch
def test_another_process_can_do_the_same():
    products.use_products("bf16")
    used = products.products_in_use()
    products.plain_products()
    products.use_products(used)
    assert products.products_in_use() == "bf16"


def test_a_torch_without_the_switch(monkeypatch):
    monkeypatch.setattr(torch.backends, "mkldnn", SimpleNamespace())
    products.fast_products()
    assert products.products_in_use() == "ieee"
    with pytest.raises(InputError, match="this torch cannot"):
        products.choose_products("bf16", CPU)
