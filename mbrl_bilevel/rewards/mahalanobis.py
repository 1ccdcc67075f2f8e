"""The Mahalanobis reward, whose matrix U says how much each error costs."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.distributions import DiagonalGaussian, Gaussian
from mbrl_bilevel.models.networks import EnsembleMLP
from mbrl_bilevel.rewards.closed_form import check_positive_definite

Form = Literal["scalar", "diagonal", "full"]


class Mahalanobis(nn.Module):
    """Reward r = -(y_hat - y)^T U (y_hat - y), U = L L^T (theory T2, T9).

    U is positive definite by construction: the parameters are log L_ii (one in all for `scalar`)
    and, for `full`, the entries under L's diagonal in units of their row's L_ii. With `inputs`, a
    network of x moves them, starting from no movement: U(x) starts at `initial` everywhere.
    `spread` bounds the movement, so that L_ii(x) stays within a factor exp(spread) of its global
    value however far x lies from the data.

    Args:
        outputs: n, dimensions of the target.
        initial: U at the start: a number u (U = u I), its diagonal [n], or a matrix [n, n].
        inputs: d, dimensions of x for an input-dependent U; None for a global one.

    Raises:
        InputError: `initial` is not finite, not positive definite or does not fit the form.
    """

    _rows: Tensor
    _columns: Tensor

    def __init__(
        self,
        outputs: int,
        *,
        form: Form = "diagonal",
        initial: float | Float[Tensor, "..."] = 1.0,
        inputs: int | None = None,
        hidden: Sequence[int] = (64, 64),
        spread: float = 5.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if outputs < 1 or (inputs is not None and inputs < 1):
            raise InputError(
                f"reward on {outputs} outputs, {inputs} inputs: each must be at least 1"
            )
        if form not in ("scalar", "diagonal", "full"):
            raise InputError(f"form of U {form!r}: choose scalar, diagonal or full")
        self.outputs, self.inputs, self.form, self.spread = outputs, inputs, form, spread
        log_diagonal, lower = _coordinates(_initial_matrix(initial, outputs), form)
        self.log_diagonal = nn.Parameter(log_diagonal)
        self.lower = nn.Parameter(lower) if form == "full" else None
        rows, columns = torch.tril_indices(outputs, outputs, -1)
        self.register_buffer("_rows", rows, persistent=False)
        self.register_buffer("_columns", columns, persistent=False)
        self.network: EnsembleMLP | None = None
        if inputs is not None:
            free = log_diagonal.numel() + (lower.numel() if form == "full" else 0)
            self.network = EnsembleMLP(1, inputs, hidden, free, generator).to(log_diagonal.dtype)
            for parameter in self.network.layers[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, y_hat: Float[Tensor, "*g b n"], y: Float[Tensor, "*y b n"], x: Float[Tensor, "*x b d"]
    ) -> Float[Tensor, "*h b"]:
        """Rewards of generations y_hat [G, B, n] or [G, E, B, n]; leading axes broadcast."""
        return self.terms(y_hat, y, x).sum(-1)

    def terms(
        self, y_hat: Float[Tensor, "*g b n"], y: Float[Tensor, "*y b n"], x: Float[Tensor, "*x b d"]
    ) -> Float[Tensor, "*h b n"]:
        """The reward's n summands -(L^T (y_hat - y))_i^2: one per dimension unless U is full."""
        self._check_target(y)
        return -self._weighted(y_hat - y, self._factor(x)).square()

    def expected(
        self, gaussian: Gaussian, y: Float[Tensor, "*y b n"], x: Float[Tensor, "*x b d"]
    ) -> Float[Tensor, "*h b"]:
        """E[r] over y_hat ~ N(mu, S): -(mu - y)^T U (mu - y) - tr(U S) (theory T2)."""
        return self.expected_terms(gaussian, y, x).sum(-1)

    def expected_terms(
        self, gaussian: Gaussian, y: Float[Tensor, "*y b n"], x: Float[Tensor, "*x b d"]
    ) -> Float[Tensor, "*h b n"]:
        """Expectation of `terms` under a Gaussian."""
        self._check_target(y)
        factor = self._factor(x)
        at_mean = -self._weighted(gaussian.mean - y, factor).square()
        if self.form != "full":
            return at_mean - (gaussian.std * factor).square()
        if isinstance(gaussian, DiagonalGaussian):  # (L^T std)_ij^2 summed over j, no matrix made
            variance = gaussian.std.square().unsqueeze(-2)
            return at_mean - (variance @ factor.square()).squeeze(-2)
        return at_mean - (factor.mT @ gaussian.scale_tril).square().sum(-1)

    def scale_tril(self, x: Float[Tensor, "*x b d"] | None = None) -> Float[Tensor, "*s n n"]:
        """L, lower triangular with a positive diagonal: [n, n], or [B, n, n] if it depends on x."""
        factor = self._factor(x)
        return factor if self.form == "full" else torch.diag_embed(factor)

    def precision(self, x: Float[Tensor, "*x b d"] | None = None) -> Float[Tensor, "*s n n"]:
        """U = L L^T: [n, n], or [B, n, n] if it depends on x."""
        factor = self.scale_tril(x)
        return factor @ factor.mT

    @torch.no_grad()
    def set_precision(self, U: Float[Tensor, "n n"]) -> None:
        """Makes the global U this one; an input-dependent U(x) keeps its movement around it.

        Raises:
            InputError: U is not finite, not positive definite or does not fit the form.
        """
        log_diagonal, lower = _coordinates(_initial_matrix(U, self.outputs), self.form)
        self.log_diagonal.copy_(log_diagonal)
        if self.lower is not None:
            self.lower.copy_(lower)

    def precision_diagonal(self, x: Float[Tensor, "*x b d"] | None = None) -> Float[Tensor, "*s n"]:
        """U_ii: [n], or [B, n] if U depends on x."""
        square = self._factor(x).square()
        return square.sum(-1) if self.form == "full" else square

    def logdet(self, x: Float[Tensor, "*x b d"] | None = None) -> Float[Tensor, "*s"]:
        """log det U: a number, or [B] if U depends on x."""
        factor = self._factor(x)
        diagonal = factor.diagonal(dim1=-2, dim2=-1) if self.form == "full" else factor
        return 2 * diagonal.log().sum(-1)

    def _factor(self, x: Tensor | None) -> Tensor:
        """L of a full U, else its diagonal: one pass through the network for either."""
        log_diagonal: Tensor = self.log_diagonal
        movement = self._movement(x)
        k = log_diagonal.numel()
        if movement is not None:
            log_diagonal = log_diagonal + movement[..., :k]
        diagonal = log_diagonal.exp().expand(*log_diagonal.shape[:-1], self.outputs)
        if self.lower is None:
            return diagonal
        lower = self.lower if movement is None else self.lower + movement[..., k:]
        n = self.outputs
        index = (self._rows * n + self._columns).expand(lower.shape)
        strict = lower.new_zeros(*lower.shape[:-1], n * n).scatter(-1, index, lower)
        unit = strict.unflatten(-1, (n, n)) + torch.eye(n, dtype=lower.dtype, device=lower.device)
        return diagonal.unsqueeze(-1) * unit

    def _weighted(self, diff: Tensor, factor: Tensor) -> Tensor:
        """L^T diff."""
        if self.form != "full":
            return diff * factor
        return (diff.unsqueeze(-2) @ factor).squeeze(-2)

    def _check_target(self, y: Tensor) -> None:
        if y.shape[-1] != self.outputs:
            raise InputError(
                f"reward on {self.outputs} target dimensions was given targets of {y.shape[-1]}; "
                "build it with outputs equal to the model's"
            )

    def _movement(self, x: Tensor | None) -> Tensor | None:
        if self.network is None:
            return None
        if x is None or x.shape[-1] != self.inputs:
            given = "none" if x is None else f"one of {x.shape[-1]} dimensions"
            raise InputError(
                f"input-dependent reward on {self.inputs} inputs was given {given}; "
                "pass the model's x"
            )
        out = self.network(x.reshape(1, -1, x.shape[-1]))
        out = out.reshape(*x.shape[:-1], out.shape[-1])
        return self.spread * torch.tanh(out / self.spread)


def _initial_matrix(initial: float | Tensor, n: int) -> Float[Tensor, "n n"]:
    value = torch.as_tensor(initial).detach()
    if not value.is_floating_point():
        value = value.to(torch.get_default_dtype())
    if value.shape == ():
        value = value * torch.eye(n, dtype=value.dtype, device=value.device)
    elif value.shape == (n,):
        value = torch.diag(value)
    if value.shape != (n, n):
        raise InputError(
            f"initial U of shape {list(value.shape)}: must be a number, [{n}] or [{n}, {n}]"
        )
    check_positive_definite(value, "initial U")
    return value


def _coordinates(matrix: Float[Tensor, "n n"], form: Form) -> tuple[Tensor, Tensor]:
    n = matrix.shape[0]
    diagonal = matrix.diagonal()
    rounding = n * torch.finfo(matrix.dtype).eps
    beside = (matrix - torch.diag(diagonal)) / (diagonal.unsqueeze(-1) * diagonal).sqrt()
    if form != "full" and bool(beside.abs().amax() > rounding):
        raise InputError(f"initial U has entries off its diagonal, which form={form!r} cannot hold")
    if form == "scalar" and bool((diagonal / diagonal[0] - 1).abs().amax() > rounding):
        raise InputError("initial U is no multiple of the identity, as form='scalar' must be")
    factor = torch.linalg.cholesky(matrix.double()).to(matrix)
    log_diagonal = factor.diagonal().log()
    rows, columns = torch.tril_indices(n, n, -1)
    lower = factor[rows, columns] / factor.diagonal()[rows]
    return (log_diagonal[:1] if form == "scalar" else log_diagonal).clone(), lower
