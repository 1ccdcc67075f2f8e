"""The processor as /proc/cpuinfo names it."""

import pytest

from mbrl_bilevel.scripts.peers.machine import cpu_name, instruction_sets

X86 = """
processor\t: 0
model name\t: AMD EPYC 9B14
flags\t\t: fpu sse avx avx2 avx512f avx512_bf16 fma
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve\n"


@pytest.mark.parametrize(
    ("told", "sets"),
    [(X86, ("avx", "avx2", "fma", "avx512f", "avx512_bf16")), (ARM, ("sve",))],
)
def test_instruction_sets_are_whole_words_of_the_flags(told, sets):
    assert instruction_sets(told) == sets


def test_the_name_is_the_model_name():
    assert cpu_name(X86) == "AMD EPYC 9B14"


def test_where_nothing_is_told_python_and_torch_tell():
    assert cpu_name("") != ""
    assert len(instruction_sets("")) == 1
