"""What TensorBoard shows of a training beside its curves: first charts and hyper-parameters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

UNCOMPARED = ("fingerprint", "environment")  # of a configuration: not settings


@dataclass(frozen=True)
class Layout:
    """Charts of the Custom Scalars page, and what the HParams page compares runs by."""

    charts: Mapping[str, Sequence[str]]
    """Titles of charts, and the tags in each, as regular expressions."""
    compared: Sequence[str]
    """Tags whose last values stand beside the hyper-parameters."""


MODEL = Layout(
    charts={
        "Held-out NLL": ["held_out/nll", "held_out_nll/.*"],
        "Held-out MSE": ["held_out/mse", "held_out_mse/.*"],
        "Held-out RMSE by target": ["held_out_rmse/.*"],
        "Training loss": ["train/loss"],
    },
    compared=("held_out/nll", "held_out/mse", "test/nll", "test/rmse"),
)
AGENT = Layout(
    charts={
        "Return": ["evaluation/return", "real/return"],
        "Value and discounted return": ["evaluation/q", "evaluation/discounted_return"],
        "Parts of the reward": ["evaluation/reward_.*"],
        "Model error on new transitions": ["model/fresh_rmse"],
        "Model held-out MSE": ["model/held_out_mse"],
        "Model NLL": ["model/fresh_nll", "model/held_out_nll"],
    },
    compared=("evaluation/return", "real/return", "model/fresh_rmse", "model/held_out_nll"),
)


def write_start(writer: SummaryWriter, config: Mapping[str, Any], layout: Layout) -> None:
    """Charts and hyper-parameters, into the run's own events.

    `SummaryWriter.add_hparams` would make another run of them, named by the time.
    """
    charts = {title: ["Multiline", list(tags)] for title, tags in layout.charts.items()}
    writer.add_custom_scalars({"Overview": charts})
    experiment, start, _ = hparams(dict(_flat(config)), dict.fromkeys(layout.compared, 0.0))
    for summary in (experiment, start):
        writer._get_file_writer().add_summary(summary)


def write_end(writer: SummaryWriter) -> None:
    """The run has succeeded."""
    writer._get_file_writer().add_summary(hparams({}, {})[2])


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            if name not in UNCOMPARED:
                yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}", value
        else:
            yield f"{prefix}{name}", str(value)
