"""Maximum likelihood in natural parameters."""

from mbrl_bilevel.objectives.likelihood import NLL


class Natural(NLL):
    r"""NLL of a network of kind "natural": -(eta1 y + eta2 y^2 + eta1^2 / (4 eta2)
    + log(-2 eta2) / 2 - log(2 pi) / 2), summed over dimensions.

    It is the likelihood of `nll`; what differs is what the network's heads are
    (`models.natural.NaturalEnsemble`), and so where gradients lead. Source: Immer et al. 2023,
    section 3; Le, Smola, Canu 2005.
    """

    name = "natural"
