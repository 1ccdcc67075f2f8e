"""What TensorBoard shows of a training beside its curves: first charts and hyper-parameters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

UNCOMPARED = ("fingerprint", "environment")  # of a configuration: not settings


OF_STEPS_AHEAD = "Model error: RMSE by steps ahead"
# Titles of charts, and the tags in each as regular expressions: the same in every run, so that runs
# of models, agents and evaluations below one folder share the charts of one page.
CHARTS = {
    "Return": ["evaluation/return", "real/return"],
    "Value and discounted return": ["evaluation/q", "evaluation/discounted_return"],
    "Parts of the reward": ["evaluation/reward_.*"],
    "Return so far by step of the episode": ["mean_return_so_far/.*"],
    "Held-out NLL": ["held_out/nll", "held_out_nll/.*", "model/held_out_nll"],
    "Held-out MSE": ["held_out/mse", "held_out_mse/.*", "model/held_out_mse"],
    "Model error: RMSE of new transitions": ["model/fresh_rmse"],
    "Model error: held-out RMSE by target": ["held_out_rmse/.*"],
    OF_STEPS_AHEAD: ["eval/k_step"],
    "Training loss": ["train/loss"],
}
OF_A_FIT = ("Held-out NLL", "Held-out MSE")


@dataclass(frozen=True)
class Layout:
    """Charts of the Custom Scalars page, by title, and what the HParams page compares runs by."""

    charts: Sequence[str]
    compared: Sequence[str] = ()
    """Tags whose last values stand beside the hyper-parameters."""


MODEL = Layout(
    charts=(
        *OF_A_FIT,
        "Model error: held-out RMSE by target",
        OF_STEPS_AHEAD,
        "Training loss",
    ),
    compared=("held_out/nll", "held_out/mse", "test/nll", "test/rmse"),
)
PLAYED = Layout(charts=("Return so far by step of the episode",))


def agent_layout(*, model: bool, critics: bool) -> Layout:
    """Returns first; of agents with a model its errors; of those with critics their values."""
    charts, compared = ["Return"], ["evaluation/return", "real/return"]
    if model:
        charts += ["Model error: RMSE of new transitions", *OF_A_FIT, OF_STEPS_AHEAD]
        compared += ["model/fresh_rmse", "model/held_out_nll"]
    if critics:
        charts += ["Value and discounted return", "Parts of the reward"]
    return Layout(tuple(charts), tuple(compared))


def write_charts(writer: SummaryWriter, layout: Layout) -> None:
    """The first charts of a run."""
    charts = {title: ["Multiline", CHARTS[title]] for title in layout.charts}
    writer.add_custom_scalars({"Overview": charts})


def write_start(writer: SummaryWriter, config: Mapping[str, Any], layout: Layout) -> None:
    """Charts and hyper-parameters, into the run's own events.

    `SummaryWriter.add_hparams` would make another run of them, named by the time.
    """
    write_charts(writer, layout)
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
