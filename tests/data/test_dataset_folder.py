"""A data set is found by its id or its folder, and nothing else is opened or fetched."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl_bilevel.data.minari import load_dataset
from mbrl_bilevel.errors import InputError
from tests.data.minari_files import episode, write


def test_a_folder_is_as_good_as_an_id(root: Path, rng: np.random.Generator) -> None:
    folder = write("my/a-v0", [episode(4, rng)])
    for given in (folder, folder.parent, str(folder), str(folder.parent)):
        assert torch.equal(
            load_dataset(given).transitions.observation,
            load_dataset("my/a-v0").transitions.observation,
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my/unknown-v0", "no data set 'my/unknown-v0' in .*--download"),
        ("my/unknown", "neither the folder of a Minari data set nor a data set id"),
        ("../x", "neither the folder"),
        ("../../etc/x-v0", "neither the folder"),
        ("/etc/passwd", "neither the folder"),
        ("/etc", "neither the folder"),
        ("", "neither the folder"),
        ("a" * 5000 + "-v0", "no data set"),
        ("x\0y-v0", "neither the folder"),
    ],
)
def test_unknown_and_malformed_names_are_refused(root: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(name)


@pytest.mark.parametrize("offline", [True, False])
def test_no_network_is_said_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1" if offline else "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    with pytest.raises(
        InputError, match=r"cannot download 'mujoco/hopper/medium-v0': no connection"
    ):
        load_dataset("mujoco/hopper/medium-v0", download=True)
