"""What a benchmark measured."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Our number, in `unit`, beside the machine's limit and a peer where there are such."""

    ours: float
    unit: str
    limit: float | None = None
    share_of_limit: float | None = None
    """Ours in the limit, from 0 to 1."""
    peer: float | None = None
    peer_name: str | None = None
    ratio: float | None = None
    """How many times as good as the peer."""
    more: Mapping[str, float]
    """Further numbers by their names, units included."""

    def rows(self, name: str) -> list[dict[str, str]]:
        """A row for each number: benchmark, metric, value, unit."""
        found: list[tuple[str, float | None, str]] = [
            ("ours", self.ours, self.unit),
            ("limit", self.limit, self.unit),
            ("share of limit", self.share_of_limit, ""),
            (self.peer_name or "peer", self.peer, self.unit),
            ("times the peer", self.ratio, ""),
            *((what, number, "") for what, number in self.more.items()),
        ]
        return [
            {"benchmark": name, "metric": what, "value": f"{number:.4g}", "unit": unit}
            for what, number, unit in found
            if number is not None
        ]

    def text(self, name: str) -> str:
        """A row, and one for everything else that was measured."""
        lines = [f"{name}: {self.ours:.4g} {self.unit}"]
        if self.limit is not None and self.share_of_limit is not None:
            share = 100 * self.share_of_limit
            lines[0] += f", limit {self.limit:.4g}, share of limit {share:.0f} %"
        if self.peer is not None and self.ratio is not None:
            lines.append(f"  {self.peer_name}: {self.peer:.4g}; ours is {self.ratio:.2f} x")
        lines += [f"  {what}: {number:.4g}" for what, number in self.more.items()]
        return "\n".join(lines)
