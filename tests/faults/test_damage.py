"""Files cut short or with one bit flipped: read as they were, or refused in one sentence."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.training.checkpoint import FILE, PREVIOUS, load_checkpoint, save_checkpoint
from mbrl_bilevel.training.run_folder import RunFolder
from tests.faults.cases import DATASET
from tests.faults.conftest import Tally

CONFIG = {"dataset": DATASET, "seed": 0, "hidden": [16, 16]}
Damage = Callable[[bytes], bytes]

WHOLE = 1 << 30
places = st.integers(0, WHOLE - 1)  # of a file, in parts of its length
flips = st.tuples(places, st.integers(0, 7))
cuts = places
several = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def flipped(raw: bytes, place: int, bit: int) -> bytes:
    """The same with one bit turned over at `place`."""
    changed = bytearray(raw)
    changed[place * len(raw) // WHOLE] ^= 1 << bit
    return bytes(changed)


def cut(raw: bytes, place: int) -> bytes:
    return raw[: place * len(raw) // WHOLE]


@contextmanager
def or_refused() -> Iterator[None]:
    """In one sentence."""
    try:
        yield
    except InputError as error:
        if "\n" in str(error):
            raise AssertionError("more than one line") from error


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, datasets: Path) -> Path:
    """A folder with a model, two checkpoints, a configuration and a data set."""
    folder = tmp_path_factory.mktemp("sound")
    generator = torch.Generator().manual_seed(0)
    DynamicsModel(
        3, 1, ModelSettings(members=2, hidden=(8,)), env_id="Pendulum-v1", generator=generator
    ).save(folder / "model")
    with RunFolder(folder / "run", CONFIG):
        for step in (1, 2):
            tensors = {"a": torch.full((50,), float(step)), "b": torch.tensor(step)}
            save_checkpoint(folder / "run", tensors, {"step": step})
    shutil.copytree(datasets / DATASET / "data", folder / "data")
    return folder


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "copy"))


def read_checkpoint(folder: Path) -> None:
    loaded = load_checkpoint(folder, "cpu")
    assert loaded is not None
    tensors, state = loaded
    assert state == {"step": int(tensors["b"])}
    assert torch.equal(tensors["a"], torch.full((50,), float(tensors["b"])))


def damage_checkpoint(copy: Path, sound: Path, change: Damage) -> None:
    """Whichever is damaged, one of the two is loaded whole."""
    for name in (FILE, PREVIOUS):
        shutil.rmtree(copy / "run")
        shutil.copytree(sound / "run", copy / "run")
        (copy / "run" / name).write_bytes(change((copy / "run" / name).read_bytes()))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the checkpoint .* is damaged")
            read_checkpoint(copy / "run")


def damage_model(copy: Path, sound: Path, change: Damage) -> None:
    path = copy / "model/model.safetensors"
    path.write_bytes(change((sound / "model/model.safetensors").read_bytes()))
    with or_refused():
        found = DynamicsModel.load(copy / "model").state_dict()
        whole = DynamicsModel.load(sound / "model").state_dict()
        assert all(torch.equal(v, whole[k]) for k, v in found.items())


def damage_description(copy: Path, sound: Path, change: Damage) -> None:
    path = copy / "model/model.yaml"
    path.write_bytes(change((sound / "model/model.yaml").read_bytes()))
    with or_refused():
        model = DynamicsModel.load(copy / "model")
        gaussian = model.predict(torch.zeros(1, 3), torch.zeros(1, 1))
        assert gaussian.mean.shape == (2, 1, 3)
        assert gaussian.mean.isfinite().all()


def damage_configuration(copy: Path, sound: Path, change: Damage) -> None:
    """Continued only where it still says the same."""
    path = copy / "run/config.yaml"
    path.write_bytes(change((sound / "run/config.yaml").read_bytes()))
    with or_refused(), RunFolder(copy / "run", CONFIG, resume=True):
        pass


def damage_metadata(copy: Path, sound: Path, change: Damage) -> None:
    path = copy / "data/metadata.json"
    path.write_bytes(change((sound / "data/metadata.json").read_bytes()))
    read_dataset(copy)


def damage_numbers(copy: Path, sound: Path, change: Damage) -> None:
    """HDF5 has no checksums: a number may be another one, but all of them are there, and finite."""
    path = copy / "data/main_data.hdf5"
    path.write_bytes(change((sound / "data/main_data.hdf5").read_bytes()))
    read_dataset(copy)


def read_dataset(copy: Path) -> None:
    with or_refused(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* actions outside their box")
        data = load_dataset(copy / "data").transitions
        assert data.observation.shape == (2400, 3)
        assert data.observation.isfinite().all()
        assert data.reward.isfinite().all()


KINDS = {
    "checkpoint": damage_checkpoint,
    "model.safetensors": damage_model,
    "model.yaml": damage_description,
    "config.yaml": damage_configuration,
    "metadata.json": damage_metadata,
    "main_data.hdf5": damage_numbers,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit(kind: str, copy: Path, sound: Path, tally: Tally) -> None:
    @several
    @given(flips)
    def at(where: tuple[int, int]) -> None:
        with tally.fault(f"one bit flipped: {kind}"):
            KINDS[kind](copy, sound, lambda raw: flipped(raw, *where))

    at()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short(kind: str, copy: Path, sound: Path, tally: Tally) -> None:
    @several
    @given(cuts)
    def at(where: int) -> None:
        with tally.fault(f"cut short: {kind}"):
            KINDS[kind](copy, sound, lambda raw: cut(raw, where))

    at()
