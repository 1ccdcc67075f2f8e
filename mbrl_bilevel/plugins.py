"""Modules of the user's own in processes of ours: they register there what they do here."""

import importlib
import os

VARIABLE = "MBRL_BILEVEL_PLUGINS"  # inherited by every process


def keep_plugin(module: str) -> None:
    """Notes a module that was imported, for the processes that are started from now on."""
    os.environ[VARIABLE] = " ".join([*os.environ.get(VARIABLE, "").split(), module])


def import_plugins() -> None:
    """Imports the modules that the process above has noted."""
    for module in os.environ.get(VARIABLE, "").split():
        importlib.import_module(module)
