"""What can be chosen by name: settings, and the function that builds from them."""

import importlib
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Generic, TypeVar

from mbrl_bilevel.errors import InputError

Settings = TypeVar("Settings")


class Registry(Generic[Settings]):
    """Names of one kind of thing (`objective`, say), in the order in which they were registered.

    A builder is called with an instance of its settings and what else the kind needs. Those of this
    package are given as "module:function" and imported when they are first used, so that names and
    settings (all that `--help` needs) are known without torch.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._settings: dict[str, type[Settings]] = {}
        self._builders: dict[str, Callable[..., Any] | str] = {}

    def register(
        self, name: str, settings: type[Settings], build: Callable[..., Any] | str
    ) -> None:
        """Adds a name; its flags are the fields of `settings`.

        Raises:
            InputError: a name that is taken or is none, settings that are no dataclass or belong to
                another name.
        """
        if not name.isidentifier():
            raise InputError(f"{self.kind} {name!r}: choose a name of letters, digits and _")
        if name in self._settings:
            raise InputError(f"{self.kind} {name!r} is registered already: choose another name")
        if not is_dataclass(settings):
            raise InputError(f"{self.kind} {name!r}: {settings!r} is no dataclass of settings")
        if settings in self._settings.values():
            raise InputError(
                f"{self.kind} {name!r}: {settings.__name__} are the settings of "
                f"{self._name(settings)!r}; derive a dataclass of its own"
            )
        self._settings[name], self._builders[name] = settings, build

    def __contains__(self, name: object) -> bool:
        return name in self._settings

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._settings)

    def settings(self, name: str) -> type[Settings]:
        """The settings of that name; InputError where there are none."""
        if name not in self._settings:
            raise InputError(f"no {self.kind} {name!r}: choose one of {', '.join(self.names)}")
        return self._settings[name]

    def name(self, settings: Settings) -> str:
        """The name of these settings; InputError where they were never registered."""
        return self._name(type(settings))

    def builder(self, settings: Settings) -> Callable[..., Any]:
        """The function that builds from these settings; InputError as of `name`."""
        build = self._builders[self.name(settings)]
        if isinstance(build, str):
            module, function = build.split(":")
            return getattr(importlib.import_module(module), function)
        return build

    def unregister(self, name: str) -> None:
        """Forgets a name, for tests that register one."""
        del self._settings[name], self._builders[name]

    def _name(self, settings: type[Settings]) -> str:
        for name, known in self._settings.items():
            if known is settings:
                return name
        raise InputError(
            f"{settings.__name__} are no settings of any {self.kind}: choose "
            f"{', '.join(s.__name__ for s in self._settings.values())}, or register them"
        )
