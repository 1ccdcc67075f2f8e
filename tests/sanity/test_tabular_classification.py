"""Classifiers of small tables: the pieces against slow references, one small table as a whole."""

import pytest
import torch

from mbrl_bilevel.models.categorical import Categorical
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.rewards.one_hot import OneHotMahalanobis
from mbrl_bilevel.sanity import tabular_classification as tabular
from mbrl_bilevel.sanity.tabular_data import Splits, load_table, split

SEEDS = 3


@pytest.fixture(scope="module")
def iris() -> Splits:
    pytest.importorskip("sklearn")
    return split(*load_table("iris"), SEEDS, torch.Generator().manual_seed(0))


def test_every_seed_deals_every_row_once_and_standardises_by_its_inner_rows():
    x = torch.arange(40.0)[:, None] * torch.tensor([1.0, 0.0]) + torch.tensor([0.0, 7.0])
    y = torch.arange(40) % 3
    found = split(x, y, SEEDS, torch.Generator().manual_seed(0))
    assert [part.y.shape[1] for part in found[:3]] == [20, 10, 10]
    torch.testing.assert_close(found.inner.x.mean(1), torch.zeros(SEEDS, 2))
    torch.testing.assert_close(found.inner.x[..., 0].std(1), torch.ones(SEEDS))
    whole = torch.cat([part.x[..., 0] for part in found[:3]], 1)
    order = whole.argsort(-1)
    labels = torch.cat([part.y for part in found[:3]], 1).gather(1, order)
    assert (labels == y).all()  # rows keep their labels, none is lost or doubled
    assert not torch.equal(order[0], order[1])
    assert found.classes == 3


def test_quality_is_what_a_loop_over_rows_counts():
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(2, 60, 4, generator=generator)
    y = torch.randint(4, (2, 60), generator=generator)
    found = tabular.quality(Categorical(logits), y, bins=5)
    for member in range(2):
        rows = [
            (p.max().item(), p.argmax() == t)
            for p, t in zip(logits[member].softmax(-1), y[member], strict=True)
        ]
        ece = 0.0
        for k in range(5):
            inside = [(c, bool(hit)) for c, hit in rows if k / 5 <= c < (k + 1) / 5]
            if inside:
                accuracy = sum(hit for _, hit in inside) / len(inside)
                confidence = sum(c for c, _ in inside) / len(inside)
                ece += len(inside) / 60 * abs(accuracy - confidence)
        assert found.ece[member].item() == pytest.approx(ece, abs=1e-5)
        assert found.accuracy[member].item() == pytest.approx(sum(h for _, h in rows).item() / 60)
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    torch.testing.assert_close(found.nll, nll.reshape(2, 60).mean(1))


def test_the_scalar_reward_is_the_one_hot_mahalanobis_reward_of_each_member():
    b, y = torch.tensor([0.5, 3.0]), torch.tensor([[0, 2, 1], [1, 1, 0]])
    x = torch.zeros(2, 3, 4)
    y_hat = torch.arange(3)[:, None, None].expand(3, 2, 3)
    found = tabular.ScalarReward(b)(y_hat, y, x)
    for member in range(2):
        slow = OneHotMahalanobis(3, form="scalar", initial=b[member])
        torch.testing.assert_close(
            found[:, member], slow(y_hat[:, member], y[member], x[member]).detach()
        )


def test_each_seed_has_its_own_reward_and_its_table_is_that_reward(iris):
    """vmap over seeds, and the frozen table, against one plain reward per seed."""
    generator = torch.Generator().manual_seed(2)
    objective = PolicyGradient(OneHotMahalanobis(3, inputs=4, hidden=()))
    phi = {
        name: 0.3 * torch.randn(SEEDS, *p.shape, generator=generator)
        for name, p in objective.named_parameters()
    }
    models = tabular.Classifiers(iris, generator)
    problem = tabular.bilevel(models.network, objective)
    theta = dict(models.network.named_parameters())
    losses = problem.inner(theta, phi, iris.inner)
    table = tabular._table(objective, phi, iris.inner)
    frozen = PolicyGradient(tabular.TableReward(table))
    torch.testing.assert_close(frozen(models.network, *iris.inner)[0], losses)
    logits = models.network(iris.inner.x).logits
    for seed in range(SEEDS):
        objective.load_state_dict({name: p[seed] for name, p in phi.items()})
        x, y = iris.inner.x[seed], iris.inner.y[seed]
        torch.testing.assert_close(objective(Categorical(logits[seed]), x, y)[0], losses[seed])
    assert losses.unique().numel() == SEEDS


def test_copies_train_as_one_set_alone_does(iris):
    """Members do not see one another: two copies under the rule's b end where one ends."""
    models = tabular.Classifiers(iris, torch.Generator().manual_seed(3))
    b = tabular.rule_of(iris.inner.y, 3)
    one = models.trained(PolicyGradient(tabular.ScalarReward(b)), steps=20)
    two = models.trained(PolicyGradient(tabular.ScalarReward(b.repeat(2))), 2, steps=20)
    for name, p in one.named_parameters():
        torch.testing.assert_close(two.get_parameter(name)[SEEDS:], p, rtol=1e-4, atol=1e-5)


def test_the_best_copy_is_chosen_by_seed():
    nll = torch.tensor([[0.3, 0.1, 0.5], [0.2, 0.4, 0.5], [0.9, 0.9, 0.4]])
    assert tabular.best_copy(nll).tolist() == [3, 1, 8]


def test_objectives_on_iris_meet_their_checks(iris, monkeypatch):
    monkeypatch.setattr(tabular, "STOPS", (0, 5))
    found = tabular.compared("iris", SEEDS, torch.Generator().manual_seed(0))
    assert len(found) == 5
    assert [c for c in tabular.table_checks("iris", found) if not c.passed] == []
    for figures in found.values():
        assert figures.accuracy.mean() > 0.85  # guessing has 1 / 3
    # U = I is far too timid for almost separable classes: 0.79 at the most on a fitted row
    assert found[tabular.IDENTITY].ece.mean() > 0.1 > found[tabular.RULE].ece.mean()


def test_checks_fail_on_a_worse_accuracy_and_a_worse_nll():
    def flat(accuracy: float, nll: float, *noise: float) -> tabular.Quality:
        values = torch.tensor(noise)
        return tabular.Quality(accuracy + values, nll + values, values)

    found = {
        tabular.NLL: flat(0.9, 0.3, 0.0, 0.001, -0.001),
        tabular.RULE: flat(0.8, 0.3, 0.0, -0.001, 0.001),
        tabular.LEARNED: flat(0.9, 0.4, 0.0, 0.001, -0.001),
    }
    assert not any(c.passed for c in tabular.table_checks("", found))
