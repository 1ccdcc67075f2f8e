"""The networks that a dynamics model may have, by name."""

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.natural import NaturalEnsemble
from mbrl_bilevel.models.separate_noise import SeparateNoiseEnsemble
from mbrl_bilevel.models.settings import NetworkKind
from mbrl_bilevel.models.two_means import TwoMeanEnsemble

NETWORKS: dict[NetworkKind, type[GaussianEnsemble]] = {
    network.kind: network
    for network in (GaussianEnsemble, NaturalEnsemble, SeparateNoiseEnsemble, TwoMeanEnsemble)
}
