"""Run folders that a command keeps: whether they hold the runs that it would make now."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import read_yaml
from mbrl_bilevel.training.run_folder import CONFIG, UNSTARTED


def refuse_another_run(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses a folder unless it is new or holds a run of this configuration, begun or finished.

    Settings that the run's config.yaml does not name are not compared: it is from before them.

    Raises:
        InputError: something else, or a run of other settings, is there.
    """
    if not folder.exists():
        return
    if not (folder / CONFIG).is_file():
        if not folder.is_dir() or any(p.name not in UNSTARTED for p in folder.iterdir()):
            raise InputError(f"{folder} is no run of train-agent: choose another --out")
        return
    try:
        earlier = read_yaml(folder / CONFIG)
    except (ValueError, OSError) as error:
        raise InputError(f"{folder / CONFIG} is damaged ({error}): choose another --out") from None
    if not isinstance(earlier, dict):
        raise InputError(f"{folder / CONFIG} is damaged: choose another --out")
    # All of them: some follow from others that were given.
    changed = [
        f"{name} {value} (now {config[name]})"
        for name, value in earlier.items()
        if name in config and config[name] != value
    ]
    if changed:
        raise InputError(
            f"the run in {folder} has other settings, {', '.join(changed)}: give the same, or "
            "choose another --out"
        )
