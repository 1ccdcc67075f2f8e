"""The Mahalanobis reward between one-hot codes, for categorical models."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl_bilevel.rewards.mahalanobis import Form, Mahalanobis


class OneHotMahalanobis(nn.Module):
    """Reward r(k, y) = -(e_k - e_y)^T U (e_k - e_y) of class k where y is true (theory T7).

    The optimal logits (2 (U q)_k - U_kk) / lam are linear in the frequencies q(k | x), so that a
    global U cannot represent log q in general; an input-dependent one (`inputs`) can. Arguments as
    Mahalanobis.
    """

    def __init__(
        self,
        classes: int,
        *,
        form: Form = "diagonal",
        initial: float | Float[Tensor, "..."] = 1.0,
        inputs: int | None = None,
        hidden: Sequence[int] = (64, 64),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.metric = Mahalanobis(
            classes, form=form, initial=initial, inputs=inputs, hidden=hidden, generator=generator
        )

    def forward(
        self, y_hat: Int[Tensor, "*g b"], y: Int[Tensor, "*y b"], x: Float[Tensor, "*x b d"]
    ) -> Float[Tensor, "*h b"]:
        """Rewards of generated classes y_hat [G, B] or [G, E, B]; leading axes broadcast."""
        table = self.table(y, x)
        lead = torch.broadcast_shapes(table.shape[:-1], y_hat.shape)
        index = y_hat.expand(lead).unsqueeze(-1)
        return table.expand(*lead, self.classes).gather(-1, index).squeeze(-1)

    def table(self, y: Int[Tensor, "*y b"], x: Float[Tensor, "*x b d"]) -> Float[Tensor, "*h b k"]:
        """The rewards -(U_kk - 2 U_ky + U_yy) of all classes k."""
        precision = self.precision(x)
        lead = torch.broadcast_shapes(precision.shape[:-2], y.shape)
        precision = precision.expand(*lead, self.classes, self.classes)
        index = y.expand(lead)[..., None, None].expand(*lead, 1, self.classes)
        row = precision.gather(-2, index).squeeze(-2)
        diagonal = precision.diagonal(dim1=-2, dim2=-1)
        of_truth = row.gather(-1, y.expand(lead).unsqueeze(-1))
        return 2 * row - diagonal - of_truth

    def precision(self, x: Float[Tensor, "*x b d"] | None = None) -> Float[Tensor, "*s k k"]:
        """U: [k, k], or [B, k, k] if it depends on x."""
        return self.metric.precision(x)
