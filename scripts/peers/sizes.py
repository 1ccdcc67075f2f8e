"""Sizes of the work, the same on both sides; nothing here imports torch."""

from dataclasses import dataclass

OBS, ACT = 17, 6  # HalfCheetah's


@dataclass(frozen=True)
class Network:
    """An ensemble from observation and action to the Gaussian of the change of observation."""

    members: int = 5
    layers: int = 4
    units: int = 200

    @property
    def hidden(self) -> tuple[int, ...]:
        return (self.units,) * self.layers

    @property
    def sizes(self) -> list[int]:
        """Of every layer, from the input to the output."""
        return [OBS + ACT, *self.hidden, 2 * OBS]

    def __str__(self) -> str:
        return f"{self.members} members of {self.layers} x {self.units}"
