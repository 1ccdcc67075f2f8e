"""Where a Minari data set lies: its id, its folder, its download."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import minari
from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage.datasets_root_dir import get_dataset_path

from mbrl_bilevel.errors import InputError

HUB_TIMEOUT_SECONDS = 5.0


def dataset_folder(dataset: str | Path, *, download: bool = False) -> Path:
    """The folder that holds metadata.json and main_data.hdf5, fetched first if asked for.

    Raises:
        InputError: no such id or folder here, or it cannot be fetched.
    """
    given = Path(dataset)
    valid = isinstance(dataset, str) and is_dataset_id(dataset)
    candidates = [datasets_root() / str(dataset) / "data"] if valid else []
    candidates += [given / "data", given]
    for folder in candidates:
        if any(os.path.isfile(folder / file) for file in ("metadata.json", "main_data.hdf5")):
            return folder
    if not valid:
        raise InputError(
            f"{str(dataset)!r} is neither the folder of a Minari data set nor a data set id of the "
            "form 'namespace/name-v0' (letters, digits, - and _; a namespace of 2 characters or "
            "more, or none)"
        )
    if not download:
        raise InputError(
            f"no data set {str(dataset)!r} in {datasets_root()}; `minari list local` shows what is "
            "there, --download fetches it, `mbrl-bilevel collect` makes one"
        )
    _download(str(dataset))
    return datasets_root() / str(dataset) / "data"


def lasting_name(dataset: str) -> str:
    """What finds a data set that is here from any directory: its id, or its folder's full path.

    Raises:
        InputError: no such id or folder here.
    """
    folder = dataset_folder(dataset)
    if is_dataset_id(dataset) and folder == datasets_root() / dataset / "data":
        return dataset
    return os.path.abspath(dataset)


def is_dataset_id(name: str) -> bool:
    """Whether Minari takes this id; no such id can leave the folder of data sets."""
    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):
        return False
    return True


def datasets_root() -> Path:
    """Where Minari keeps its data sets: $MINARI_DATASETS_PATH, or ~/.minari/datasets.

    Raises:
        InputError: the folder cannot be made.
    """
    try:
        return get_dataset_path()
    except OSError as error:
        raise InputError(
            f"the folder of data sets cannot be made ({error}); "
            "point MINARI_DATASETS_PATH to a folder that you may write"
        ) from error


def _download(dataset_id: str) -> None:
    _require_hub(dataset_id)
    try:
        minari.download_dataset(dataset_id)
    except ImportError as error:
        raise InputError(f"cannot download {dataset_id!r}: {error}") from error
    except Exception as error:  # the hub's client raises many kinds, all of them a failed download
        raise InputError(
            f"cannot download {dataset_id!r} ({type(error).__name__}: {error}); "
            "check the id with `minari list remote` and the network"
        ) from error


def _require_hub(dataset_id: str) -> None:
    """Fails within seconds where the hub's own client would retry for half a minute."""
    if not os.environ.get("MINARI_REMOTE", "hf://").startswith("hf://"):
        return
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    try:
        if offline:
            raise OSError("HF_HUB_OFFLINE is set")
        urllib.request.urlopen(endpoint, timeout=HUB_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot download {dataset_id!r}: no connection to {endpoint} ({error}); connect to "
            "the network, or make a data set here with `mbrl-bilevel collect`"
        ) from error


@contextmanager
def datasets_in(root: Path | str) -> Iterator[None]:
    """Lets Minari keep its data sets in `root` for a while; it reads that from the environment."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(Path(root).absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
