"""All checks of the toy problems, in the order of the theory."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mbrl_bilevel.sanity import tabular_classification, tabular_planning, two_modes
from mbrl_bilevel.sanity.check import Check
from mbrl_bilevel.sanity.gaussian import closed_form_checks, draw, inner_checks
from mbrl_bilevel.sanity.gaussian_curves import curve_checks, stopped_checks
from mbrl_bilevel.sanity.gaussian_solvers import estimator_checks, loop_checks, sampled_checks
from mbrl_bilevel.sanity.outer_horizon import horizon_checks
from mbrl_bilevel.sanity.over_seeds import Estimate
from mbrl_bilevel.sanity.tabular_data import TABLES
from mbrl_bilevel.sanity.tabular_planning import SETTINGS, Setting
from mbrl_bilevel.sanity.tabular_population import example_checks, misspecification_checks
from mbrl_bilevel.sanity.visited import visited_checks


class Part(NamedTuple):
    """Checks of one toy problem, and its metrics: table -> objective -> metric."""

    checks: list[Check]
    tables: dict[str, dict[str, dict[str, Estimate]]]


def gaussian_suite(generator: torch.Generator, count: int = 100) -> list[Check]:
    """The Gaussian toy on `count` pairs for each level: closed forms, solvers, training curves."""
    inner, outer = draw(count, generator), draw(count, generator)
    return [
        *closed_form_checks(outer),
        *inner_checks(inner),
        *estimator_checks(inner, outer),
        *loop_checks(inner, outer),
        *sampled_checks(inner, outer, generator),
        *curve_checks(inner, outer),
        *stopped_checks(inner, outer),
    ]


def horizon_suite(generator: torch.Generator) -> list[Check]:
    """Theory T10 on a system of one dimension: weights learned by the error of one step or two."""
    return horizon_checks(generator)


def visited_suite(generator: torch.Generator) -> list[Check]:
    """Theory T12: a model without a right parameter, fitted where a policy goes in it."""
    return visited_checks(generator)


def classification_suite(
    generator: torch.Generator, tables: Sequence[str] = TABLES, seeds: int = 5
) -> Part:
    """Theory T7 on populations, then every objective on scikit-learn's tables.

    Raises:
        InputError: scikit-learn is not installed.
    """
    checks, metrics = [*example_checks(), *misspecification_checks()], {}
    for name in tables:
        found = tabular_classification.compared(name, seeds, generator)
        checks += tabular_classification.table_checks(name, found)
        metrics[name] = tabular_classification.rows(found)
    return Part(checks, metrics)


def mdp_suite(seed: int, settings: Sequence[Setting] = SETTINGS) -> Part:
    """Exact planning in dynamics learned from real transitions of gymnasium's finite MDPs."""
    checks, metrics = tabular_planning.gradient_checks(seed), {}
    for setting in settings:
        checks += tabular_planning.exact_checks(setting)
        found = tabular_planning.outcomes(setting, seed)
        checks += tabular_planning.learning_checks(setting, found)
        for size, at in found.items():
            metrics[f"{setting.name}, {size} transitions"] = tabular_planning.rows(at)
    return Part(checks, metrics)


def two_modes_suite(generator: torch.Generator) -> list[Check]:
    """Theory T11: which objective gives a model that can have two modes both of them."""
    return two_modes.checks(generator)
