"""One process at a time in a folder."""

import errno
import fcntl
import os
import warnings
from pathlib import Path

from mbrl_bilevel.errors import InputError

LOCK = ".lock"


class FolderLock:
    """Holds the folder for this process until `release`, or until the process is gone.

    The lock is the kernel's (flock), on an empty file that stays behind: no process that died can
    keep others out.

    Raises:
        InputError: another run holds it. OSError: the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = None
        self._descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise InputError(
                f"another run is writing to {folder} at this moment; wait for its end, or choose "
                "another --out"
            ) from None
        except OSError as error:
            self.release()
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            warnings.warn(
                f"the file system of {folder} has no locks: see to it that no second run writes "
                "there",
                stacklevel=2,
            )

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


def is_locked(folder: Path) -> bool:
    """Whether a run is writing to the folder, this process or another."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False
