"""Full disks and folders that cannot be written: one sentence, and nothing finished is lost."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbrl_bilevel.training.checkpoint import load_checkpoint
from tests.faults.cases import CASES
from tests.faults.conftest import Tally, Whole, start


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which everybody may write."""
    folder = Path(tempfile.mkdtemp(prefix="mbrl-faults-"))
    folder.chmod(0o777)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)


def fails_in_one_sentence(code: int, said: str, command: str) -> None:
    assert code in (1, 2), said
    assert "Traceback" not in said, said
    assert said.splitlines()[-1].startswith(f"mbrl-bilevel {command}: "), said


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(500, marks=pytest.mark.slow),  # the configuration does not fit
        pytest.param(3_000, marks=pytest.mark.slow),  # TensorBoard's first curves
        15_000,  # the first checkpoint
        pytest.param(25_000, marks=pytest.mark.slow),  # the second, which is larger
    ],
)
def test_a_full_disk_while_training(limit: int, whole: Whole, tmp_path: Path, tally: Tally) -> None:
    """Room is made, and the run goes on to the same end."""
    case, place = CASES["train-model nll"], tmp_path / "run"
    expected, _ = whole("train-model nll")
    with tally.fault("disk full: train-model"):
        code, said = start(case.at(place), file_limit=limit).end()
        fails_in_one_sentence(code, said, "train-model")
        if case.started(place):
            assert "go on with: mbrl-bilevel train-model" in said
        code, said = start(case.at(place, again=case.started(place))).end()
        assert code == 0, said
        assert case.state(place) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [8, 40, 64, 90, 120])
def test_a_small_file_system(kilobytes: int, whole: Whole, tmp_path: Path, tally: Tally) -> None:
    """A real one; it is made larger, and the run goes on."""
    case, mount = CASES["train-model nll"], tmp_path / "mount"
    mount.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(mount)]
    if subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("mounting takes the rights of root")
    try:
        with tally.fault("small tmpfs: train-model"):
            place = mount / "run"
            code, said = start(case.at(place)).end()
            if code:
                fails_in_one_sentence(code, said, "train-model")
            if (place / "checkpoint.safetensors").is_file():
                assert load_checkpoint(place, "cpu") is not None
            subprocess.run(["mount", "-o", "remount,size=10m", mount], check=True)
            code, said = start(case.at(place, again=case.started(place))).end()
            assert code == 0, said
            assert case.state(place) == whole("train-model nll")[0]
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [5_000, 50_000, 500_000])
def test_a_full_disk_while_collecting(
    limit: int, whole: Whole, tmp_path: Path, tally: Tally
) -> None:
    """What stood there stays."""
    case, place = CASES["collect"], tmp_path / f"full-{limit}"
    expected, _ = whole("collect")
    with tally.fault("disk full: collect"):
        for rest in (), ("--seed", "5"):
            code, said = start([*case.at(place), *rest], file_limit=limit).end()
            fails_in_one_sentence(code, said, "collect")
            if not rest:
                assert case.state(place) is None
                code, said = start(case.at(place)).end()
                assert code == 0, said
            assert case.state(place) == expected


def test_a_folder_that_may_only_be_read(
    open_folder: Path, datasets: Path, whole: Whole, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(__file__).resolve()
    if not all(folder.stat().st_mode & 0o001 for folder in here.parents):
        pytest.skip("the checkout lies in a folder that others may not enter, nor may this user")
    case, place = CASES["train-model nll"], open_folder / "run"
    expected, _ = whole("train-model nll")
    shutil.copytree(datasets, open_folder / "minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(open_folder / "minari"))
    with tally.fault("folder that may only be read: train-model", 2):
        place.mkdir()
        place.chmod(0o555)
        code, said = start(case.at(place), unprivileged=True).end()
        fails_in_one_sentence(code, said, "train-model")
        assert "cannot be written (Permission denied); choose another --out" in said
        assert not any(place.iterdir())
        place.chmod(0o755)
        assert start(case.at(place)).end()[0] == 0
        for path in (*place.iterdir(), place):
            path.chmod(0o555)
        code, said = start(case.at(place, again=True), unprivileged=True).end()
        fails_in_one_sentence(code, said, "train-model")
        assert case.state(place) == expected
