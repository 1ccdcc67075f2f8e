"""The machine that a table was measured on."""

import platform
from pathlib import Path

import torch

SETS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "neon", "sve")


def cpu_name(told: str | None = None) -> str:
    """The processor's name by /proc/cpuinfo (or the text given), else by Python."""
    return _field(told, "model name") or platform.processor() or platform.machine()


def instruction_sets(told: str | None = None) -> tuple[str, ...]:
    """Those of SETS that /proc/cpuinfo (or the text given) names; else the one torch chose."""
    flags = (_field(told, "flags") or _field(told, "Features") or "").split()
    return tuple(s for s in SETS if s in flags) or (torch.backends.cpu.get_cpu_capability(),)


def _field(told: str | None, name: str) -> str | None:
    if told is None:
        path = Path("/proc/cpuinfo")
        told = path.read_text() if path.is_file() else ""
    for line in told.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
