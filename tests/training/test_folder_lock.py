"""One process at a time in a folder."""

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.folder_lock import FolderLock, is_locked


def test_a_folder_is_locked_until_the_lock_is_released(tmp_path):
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())  # to ask leaves nothing
    lock = FolderLock(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(InputError, match="another run is writing"):
        FolderLock(tmp_path)
    lock.release()
    assert not is_locked(tmp_path)
    FolderLock(tmp_path).release()
