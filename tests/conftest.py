"""Every annotation of a shape is checked while the tests run."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

# As on the command line: torch's threads, spinning, would slow tests many times on a busy machine.
# Read when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

install_import_hook("mbrl_bilevel", "beartype.beartype")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache folder of whoever runs the tests is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """Commands that tests run in this process set up torch for themselves alone."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n auto`, the default: the whole suite in processes, a part of it in this one."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return min(4, os.cpu_count() or 1) if whole else 0


OUTCOMES = ("refused", "warned", "right")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notes what a test marked `situation(outcome)` promises where reports can carry it."""
    for item in items:
        for mark in item.iter_markers("situation"):
            (outcome,) = mark.args
            assert outcome in OUTCOMES, f"{item.nodeid}: situation({outcome!r})"
            item.user_properties.append(("situation", outcome))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of situations in which a toolkit could end silently wrong."""
    reports = [(r, True) for r in terminalreporter.getreports("passed") if r.when == "call"]
    reports += [(r, False) for r in terminalreporter.getreports("failed")]
    tried: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for report, passed in reports:
        for outcome in (v for k, v in report.user_properties if k == "situation"):
            tried[outcome] += 1
            found[outcome] += passed
    if not tried:
        return
    terminalreporter.section("silent errors")
    total = tried.total()
    columns = "".join(f"{outcome:>10}" for outcome in ("tried", *OUTCOMES, "wrong"))
    counts = (total, *(found[outcome] for outcome in OUTCOMES), total - found.total())
    terminalreporter.write_line(f"{'':<12}{columns}")
    terminalreporter.write_line(f"{'situations':<12}{''.join(f'{count:>10}' for count in counts)}")
