"""Every annotation of a shape is checked while the tests run."""

import os
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

# As on the command line: torch's threads, spinning, would slow tests many times on a busy machine.
# Read when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import torch

install_import_hook("mbrl_bilevel", "beartype.beartype")


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """Commands that tests run in this process set up torch for themselves alone."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"
