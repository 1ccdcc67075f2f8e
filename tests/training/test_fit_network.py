"""The fit loop: against closed forms, against members trained alone, and after an interruption."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import MSE, NLL
from mbrl_bilevel.training.clipping import clip_by_member
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


def linear_data(count=400, noise=0.5, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=g).to(dtype)
    weight = torch.tensor([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]], dtype=dtype)
    y = x @ weight + noise * torch.randn(count, 2, generator=g).to(dtype)
    return Samples(x, y)


def network(members=2, hidden=(), seed=0, **arguments):
    g = torch.Generator().manual_seed(seed)
    return GaussianEnsemble(3, 2, members=members, hidden=hidden, generator=g, **arguments)


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def test_mse_reaches_least_squares():
    data = linear_data()
    net = network()
    fit_network(
        net,
        MSE(),
        data,
        data,
        generator=seeded(),
        settings=FitSettings(steps=1500, batch_size=400, learning_rate=0.05),
    )
    design = torch.cat([data.x, torch.ones(len(data.x), 1)], 1)
    solution = torch.linalg.lstsq(design, data.y).solution
    for e in range(2):
        weight = torch.cat([net.network.layers[0].weight[e], net.network.layers[0].bias[e]])[:, :2]
        torch.testing.assert_close(weight, solution, rtol=0, atol=2e-4)


def test_nll_of_a_linear_model_reaches_the_residual_deviation():
    data = linear_data()
    net = network()
    with torch.no_grad():  # the noise does not depend on x here: fit its bias alone
        net.network.layers[0].weight[..., 2:] = 0.0
    net.network.layers[0].weight.register_hook(
        lambda g: torch.cat([g[..., :2], torch.zeros_like(g[..., 2:])], -1)
    )
    fit_network(
        net,
        NLL(),
        data,
        data,
        generator=seeded(),
        settings=FitSettings(steps=1500, batch_size=400, learning_rate=0.05),
    )
    design = torch.cat([data.x, torch.ones(len(data.x), 1)], 1)
    residual = data.y - design @ torch.linalg.lstsq(design, data.y).solution
    std = residual.square().mean(0).sqrt()
    torch.testing.assert_close(net(data.x[:1]).std[:, 0], std.expand(2, -1), rtol=2e-3, atol=0)


@pytest.mark.parametrize("clip_norm", [0.5, 1e9])
def test_an_ensemble_is_the_same_as_members_trained_alone(clip_norm):
    """Members share nothing: neither gradients, nor the clipping norm, nor the early stop."""
    data = linear_data(dtype=torch.float64)
    settings = FitSettings(steps=60, batch_size=32, clip_norm=clip_norm, patience=None)
    together = network(members=3, hidden=(8,)).double()
    alone = [together.select(torch.tensor([e])) for e in range(3)]
    fit_network(together, NLL(), data, data, generator=seeded(), settings=settings)
    for e, single in enumerate(alone):
        fit_network(single, NLL(), data, data, generator=seeded(), settings=settings)
        torch.testing.assert_close(
            single(data.x).mean[0], together(data.x).mean[e], rtol=1e-9, atol=1e-9
        )


def test_clipping_scales_each_member_by_its_own_norm():
    net = network(members=2)
    gradient = {p: torch.randn(p.shape, generator=seeded()) for p in net.parameters()}
    for p, g in gradient.items():
        p.grad = g * torch.tensor([1e-3, 10.0]).view(2, 1, 1)
    norm = clip_by_member(list(net.parameters()), 1.0)
    after = torch.stack([p.grad.flatten(1).square().sum(1) for p in net.parameters()]).sum(0).sqrt()
    torch.testing.assert_close(after, torch.stack([norm[0], torch.ones(())]))
    for p, g in gradient.items():
        torch.testing.assert_close(p.grad[0], 1e-3 * g[0])


class Killed(Exception):
    pass


class KilledAt(NLL):
    """NLL that dies at one step, as a process does."""

    def __init__(self, step):
        self.left = step

    def __call__(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().__call__(*arguments)


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "constant"])
@pytest.mark.parametrize(("resampling", "level"), [("shared", None), ("bootstrap", 0.5)])
def test_a_resumed_fit_ends_bit_for_bit_where_an_uninterrupted_one_does(
    tmp_path, schedule, resampling, level
):
    data = linear_data()
    settings = FitSettings(
        steps=100,
        batch_size=48,
        evaluate_every=9,
        schedule=schedule,
        resampling=resampling,
        progress_level=level,
    )

    def run(folder, objective, resume):
        net = network(hidden=(8,))
        with RunFolder(tmp_path / folder, {"a": 1}, resume=resume) as opened:
            result = fit_network(
                net, objective, data, data, generator=seeded(), settings=settings, run=opened,
                checkpoint_seconds=0.0,
            )  # fmt: skip
        return net, result

    whole, expected = run("whole", NLL(), False)
    with pytest.raises(Killed):
        run("killed", KilledAt(60), False)
    resumed, result = run("killed", NLL(), True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (result.nll, result.mse, result.order) == (expected.nll, expected.mse, expected.order)

    def metrics(folder):
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        return [
            {k: v for k, v in json.loads(line).items() if k != "train/steps_per_second"}
            for line in lines
        ]

    assert metrics("whole") == metrics("killed")


def test_a_resumed_fit_stops_where_an_uninterrupted_one_does(tmp_path):
    """Killed at the evaluation before the last of the patience: what it compares with is kept."""
    data = linear_data(80)
    settings = FitSettings(
        steps=2_000, batch_size=40, evaluate_every=5, patience=4, progress_level=0.5,
        schedule="constant", learning_rate=0.05,
    )  # fmt: skip

    def run(folder, objective, resume=False):
        with RunFolder(tmp_path / folder, {}, resume=resume) as opened:
            return fit_network(
                network(hidden=(8,)), objective, data, data, generator=seeded(), settings=settings,
                run=opened, checkpoint_seconds=0.0,
            )  # fmt: skip

    expected = run("whole", NLL())
    assert expected.stopped_early
    assert expected.steps > 40
    with pytest.raises(Killed):
        run("killed", KilledAt(expected.steps - 4))
    assert run("killed", NLL(), resume=True).steps == expected.steps


@pytest.mark.parametrize("level", [None, 0.5, 0.1])
def test_every_member_keeps_its_best_held_out_state_and_training_stops(level):
    """With pure noise as target the held-out error only rises: the best state is an early one."""
    g = seeded()
    train = Samples(torch.randn(40, 3, generator=g), torch.randn(40, 2, generator=g))
    held_out = Samples(torch.randn(200, 3, generator=g), torch.randn(200, 2, generator=g))
    net = network(hidden=(64,))
    result = fit_network(
        net,
        NLL(),
        train,
        held_out,
        generator=seeded(),
        settings=FitSettings(
            steps=5000,
            batch_size=40,
            learning_rate=3e-3,
            evaluate_every=20,
            patience=5,
            progress_level=level,
            schedule="constant",
        ),
    )
    assert result.stopped_early
    assert result.steps < 5000
    assert max(result.nll) < 2  # the members end at an NLL of hundreds of nats
    assert result.order == torch.tensor(result.nll).argsort().tolist()


def test_metrics_and_tensorboard_hold_the_same_named_curves(tmp_path):
    data = linear_data()
    with RunFolder(tmp_path / "run", {"a": 1}) as folder:
        fit_network(
            network(),
            NLL(),
            data,
            data,
            generator=seeded(),
            names=["angle", "speed"],
            run=folder,
            settings=FitSettings(steps=40, batch_size=32, evaluate_every=10),
        )
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert {"held_out/nll", "held_out_rmse/angle", "held_out_nll/member_1"} <= lines[0].keys()
    mean_square = (lines[0]["held_out_rmse/angle"] ** 2 + lines[0]["held_out_rmse/speed"] ** 2) / 2
    # the root of the mean over members against the mean over members: members differ a little
    assert mean_square == pytest.approx(lines[0]["held_out/mse"], rel=0.05)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    points = [event.value for event in events.Scalars("held_out/nll")]
    assert points == pytest.approx([line["held_out/nll"] for line in lines], rel=1e-6)


def test_the_cosine_schedule_ends_at_a_hundredth(tmp_path):
    data = linear_data()
    with RunFolder(tmp_path / "run", {}) as folder:
        fit_network(
            network(),
            NLL(),
            data,
            data,
            generator=seeded(),
            run=folder,
            settings=FitSettings(steps=50, evaluate_every=25, learning_rate=1e-2),
        )
    rates = [
        json.loads(line)["train/learning_rate"]
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    assert rates == pytest.approx([0.5 * (1e-2 + 1e-4), 1e-4])


def empty():
    return Samples(torch.zeros(0, 3), torch.zeros(0, 2))


@pytest.mark.parametrize(
    ("train", "held_out", "words"),
    [
        (empty(), linear_data(), "training part is empty"),
        (linear_data(), empty(), "held-out part is empty"),
        (linear_data(), Samples(torch.zeros(5, 4), torch.zeros(5, 2)), "4 inputs"),
    ],
)
def test_data_that_does_not_fit_is_refused(train, held_out, words):
    with pytest.raises(InputError, match=words):
        fit_network(network(), NLL(), train, held_out, generator=seeded())


class DropoutSeen(MSE):
    """Notes at each call whether two predictions of one input differ."""

    def __init__(self):
        self.seen = {"loss": [], "calibrate": [], "after_step": []}

    def note(self, name, network, x):
        self.seen[name].append(not torch.equal(network(x).mean, network(x).mean))

    def __call__(self, network, x, y, generator):
        self.note("loss", network, x)
        return super().__call__(network, x, y, generator)

    def calibrate(self, network, x, y):
        self.note("calibrate", network, x)
        super().calibrate(network, x, y)

    def after_step(self, network, batch, step, generator):
        self.note("after_step", network, batch[0])
        return {}


def test_dropout_is_on_in_losses_and_nowhere_else():
    """Neither where models are evaluated, nor where an outer level differentiates them."""
    objective, data = DropoutSeen(), linear_data()
    net = network(hidden=(16,), dropout=0.5)
    settings = FitSettings(steps=4, evaluate_every=2, patience=None)
    fit_network(net, objective, data, data, generator=seeded(), settings=settings)
    assert objective.seen["loss"] == 4 * [True]
    assert objective.seen["after_step"] == 4 * [False]
    assert not any(objective.seen["calibrate"])
    assert len(objective.seen["calibrate"]) >= 2
