"""Modules of the user's own, imported for what they register (`--plugin`)."""

import importlib
import os
import sys
from collections.abc import Sequence

from mbrl_bilevel.agents.settings import AGENTS
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.planning.settings import PLANNERS
from mbrl_bilevel.plugins import keep_plugin

REGISTERS = "an environment, a task, an objective, a planner or an agent"


def load_plugins(modules: Sequence[str]) -> None:
    """Imports modules, from the working directory too, for what they register.

    Raises:
        InputError: one that cannot be imported, registers nothing, or a name that is taken.
    """
    for module in modules:
        if module in sys.modules:
            continue
        before = _registered()
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # last: nothing there shadows what is installed
        try:
            importlib.import_module(module)
        except InputError as error:
            raise InputError(f"--plugin {module}: {error}") from None
        except Exception as error:  # whatever the user's code does
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"--plugin {module} cannot be imported ({type(error).__name__}: {said}): "
                "name a module in this folder, or one that is installed"
            ) from error
        if _registered() == before:
            sys.modules.pop(module, None)
            raise InputError(f"--plugin {module} registers nothing: it must register {REGISTERS}")
        keep_plugin(module)


def _registered() -> int:
    import gymnasium  # only where there are plugins: these imports take long

    from mbrl_bilevel.envs.tasks import TASKS

    known = (OBJECTIVES.names, PLANNERS.names, AGENTS.names, TASKS, gymnasium.registry)
    return sum(map(len, known))
