"""`fit`: what it trains, what it reports, how it stops."""

from __future__ import annotations

import functools
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.infer.autoguide import AutoIAFNormal
from scipy.stats import ttest_1samp
from torch import Tensor, nn
from torch.optim import lr_scheduler

import ppgrad
from ppgrad import (
    ELBO,
    Critic,
    Enumerate,
    ExpectedReturn,
    InvalidInput,
    InvalidProgram,
    LeaveOneOut,
    MovingAverage,
    NaturalGradient,
    NonFinite,
    Pathwise,
    ScoreFunction,
)
from ppgrad.testing import SUITE_FAILURE_RATE
from ppgrad.train.noise import DECAY, GradientNoise

DATA = torch.tensor([1.2, 2.9, 1.8, 2.2, 3.1])
fit = functools.partial(ppgrad.fit, progress=False)


def program() -> None:
    loc = pyro.param("loc", torch.zeros(2))
    with pyro.plate("episodes", 4):
        x = ppgrad.policy("x", dist.Normal(loc, 1.0).to_event(1))
        ppgrad.cost("f", (x - 3).square().sum(-1))


def model(data: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("n", len(data)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=data)


def guide(data: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    pyro.sample("mu", dist.Normal(loc, scale))


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, state: Tensor) -> dist.Normal:
        return dist.Normal(self.linear(state).squeeze(-1), 0.5)


def episode(policy: nn.Module) -> None:
    with pyro.plate("n", 8):
        state = torch.ones(8, 1)
        action = ppgrad.policy("a", policy(state), context=state)
        ppgrad.cost("f", (action - 3) ** 2)


def weights() -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in pyro.get_param_store().named_parameters()}


def test_it_finds_the_optimum_of_each_kind_of_program() -> None:
    history = fit(ExpectedReturn(Pathwise()), program, steps=400, learning_rate=0.05)
    assert pyro.param("loc").detach().tolist() == pytest.approx([3.0, 3.0], abs=0.3)
    assert history.steps == 400
    assert history.stopped == "steps"
    pyro.clear_param_store()
    fit(ELBO(Pathwise(), num_particles=16), model, guide, (DATA,), steps=600, learning_rate=0.05, schedule="linear")
    precision = 1 / 25 + len(DATA)
    assert pyro.param("loc").item() == pytest.approx(float(DATA.sum()) / precision, abs=0.1)
    assert pyro.param("scale").item() == pytest.approx(precision**-0.5, rel=0.2)


@pytest.mark.parametrize(
    "estimator",
    [lambda: Pathwise(), lambda: ScoreFunction(MovingAverage()), lambda: ScoreFunction(Critic(nn.Linear(1, 1)))],
    ids=["pathwise", "average", "critic"],
)
@pytest.mark.parametrize("kind", ["pyro", "torch"])
def test_its_steps_are_those_of_svi(estimator: Callable[[], Any], kind: str) -> None:
    found = []
    for way in ("svi", "fit"):
        pyro.clear_param_store()
        torch.manual_seed(1)
        policy, objective = Policy(), ExpectedReturn(estimator(), num_particles=3)
        optimizer = pyro.optim.Adam({"lr": 0.05})
        if way == "svi":
            pyro.set_rng_seed(5)
            svi = SVI(episode, None, optimizer, loss=objective)
            losses = [svi.step(policy) for _ in range(20)]
        elif kind == "pyro":
            history = fit(objective, episode, args=(policy,), steps=20, seed=5, optimizer=optimizer)
            losses = list(history.metrics["train/loss"])
        else:
            history = fit(objective, episode, args=(policy,), steps=20, seed=5, learning_rate=0.05)
            losses = list(history.metrics["train/loss"])
        found.append((losses, weights(), objective.memory))
    (losses, trained, memory), (own_losses, own_trained, own_memory) = found
    assert own_losses == losses
    assert own_trained.keys() == trained.keys()
    assert all(torch.equal(own_trained[name], trained[name]) for name in trained)
    assert str(own_memory) == str(memory)
    assert any(bool(value.abs().sum() > 0) for name, value in trained.items() if "critic" in name) == (
        "critic" in str(trained.keys())
    )


OPTIMIZERS: dict[str, Callable[[], dict[str, Any]]] = {
    "default": lambda: {},
    "class": lambda: {"optimizer": torch.optim.AdamW, "learning_rate": 0.01},
    "momentum": lambda: {"optimizer": functools.partial(torch.optim.SGD, momentum=0.9), "learning_rate": 0.01},
    "RMSprop": lambda: {"optimizer": torch.optim.RMSprop},
    "Rprop": lambda: {"optimizer": torch.optim.Rprop},
    "LBFGS": lambda: {"optimizer": functools.partial(torch.optim.LBFGS, max_iter=3), "learning_rate": 0.1},
    "linear": lambda: {"schedule": "linear", "learning_rate": np.float64(0.1)},
    "exponential": lambda: {"schedule": functools.partial(lr_scheduler.ExponentialLR, gamma=0.9)},
    "one cycle": lambda: {"schedule": functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=50)},
    "plateau": lambda: {"schedule": functools.partial(lr_scheduler.ReduceLROnPlateau, patience=2)},
    "milestones": lambda: {"schedule": functools.partial(lr_scheduler.MultiStepLR, milestones=[3, 6])},
    "natural": lambda: {"optimizer": NaturalGradient(program, lr=0.3)},
    "natural with a schedule": lambda: {"optimizer": NaturalGradient(program, lr=0.3), "schedule": "linear"},
    "pyro": lambda: {"optimizer": pyro.optim.Adam({"lr": 0.05})},
    "pyro clipped": lambda: {"optimizer": pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.9})},
    "pyro schedule": lambda: {
        "optimizer": pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.9})
    },
    "pyro plateau": lambda: {
        "optimizer": pyro.optim.ReduceLROnPlateau(
            {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, "patience": 1}
        )
    },
}


def looped() -> None:
    x = ppgrad.policy("x", dist.Bernoulli(logits=pyro.param("logit", torch.zeros(()))))
    if x.item() > 0:
        y = ppgrad.policy("y", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))
        ppgrad.cost("f", (y - np.random.standard_normal()) ** 2)
    ppgrad.cost("g", x)


def branching() -> None:
    x = ppgrad.policy("x", dist.Categorical(logits=pyro.param("logits", torch.zeros(3))))
    y = ppgrad.policy("y", dist.Bernoulli(logits=pyro.param("logit", torch.zeros(3))[x]))
    ppgrad.cost("f", (x - 1.0) ** 2 + y * ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0)))


PROGRAMS: dict[str, tuple[Callable[[], Any], Callable[[], None]]] = {
    "looped": (lambda: ExpectedReturn(ScoreFunction(MovingAverage()), num_particles=3), looped),
    "summed over": (lambda: ExpectedReturn(sites={"[xy]": Enumerate()}, num_particles=2), branching),
    "run again": (lambda: ExpectedReturn(sites={"[xy]": ppgrad.LocalExpectation()}, num_particles=2), branching),
    "gated": (lambda: ExpectedReturn(sites={"y": ppgrad.REBAR()}), branching),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_program_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    make, fn = PROGRAMS[name]
    ends = []
    for stops in ([120], [50, 120]):
        pyro.clear_param_store()
        for stop in stops:
            objective = make()
            pyro.clear_param_store()
            history = fit(
                objective, fn, steps=stop, learning_rate=0.01, checkpoint=tmp_path / f"{len(stops)}", resume=True
            )
        ends.append((weights(), str(objective.learned()), history.metrics["train/loss"]))
    assert all(torch.equal(ends[0][0][key], ends[1][0][key]) for key in ends[0][0])
    assert ends[0][1] == ends[1][1]
    pandas.testing.assert_series_equal(ends[0][2], ends[1][2], check_exact=True)


def test_a_critic_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def train(steps: int, **options: Any) -> list[Tensor]:
        torch.manual_seed(4)
        policy, critic = Policy(), nn.Linear(1, 1)
        fit(ExpectedReturn(ScoreFunction(Critic(critic))), episode, args=(policy,), steps=steps, **options)
        return [leaf.detach() for module in (policy, critic) for leaf in module.parameters()]

    whole = train(10)
    train(4, checkpoint=tmp_path / "run.pt")
    rest = train(10, checkpoint=tmp_path / "run.pt", resume=True)
    assert all(torch.equal(one, other) for one, other in zip(whole, rest, strict=True))
    torch.manual_seed(4)
    assert not torch.equal(rest[-1], [*Policy().parameters(), *nn.Linear(1, 1).parameters()][-1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    ends, tables = [], []
    for stops in ([12], [5, 12], [1, 6, 11, 12]):
        for place, stop in enumerate(stops):
            pyro.clear_param_store()
            objective = ExpectedReturn(ScoreFunction(MovingAverage()), num_particles=2)
            file = tmp_path / f"{len(stops)}.pt"
            history = fit(
                objective,
                program,
                steps=12,
                checkpoint=file,
                resume=place > 0,
                stop_when=lambda metrics, rewards=8 * stop: metrics["time/total_timesteps"] == rewards,
                **OPTIMIZERS[name](),
            )
        assert history.steps == 12
        ends.append((weights(), objective.memory))
        tables.append(history.metrics.drop(columns=[c for c in history.metrics if c.startswith("time/")]))
    for (values, memory), table in zip(ends[1:], tables[1:], strict=True):
        assert all(torch.equal(values[key], ends[0][0][key]) for key in ends[0][0])
        assert str(memory) == str(ends[0][1])
        pandas.testing.assert_frame_equal(table, tables[0], check_exact=True)


def test_an_optimizers_instance(tmp_path: Path) -> None:
    def train(steps: int, **options: Any) -> tuple[Tensor, float]:
        policy = Policy()
        adam = torch.optim.Adam(policy.parameters(), lr=0.05)
        schedule = lr_scheduler.StepLR(adam, step_size=3)
        history = fit(
            ExpectedReturn(), episode, args=(policy,), steps=steps, optimizer=adam, schedule=schedule, **options
        )
        return policy.linear.bias.detach(), history.final["train/learning_rate"]

    whole, rate = train(10)
    train(4, checkpoint=tmp_path / "run.pt")
    assert torch.equal(whole, train(10, checkpoint=tmp_path / "run.pt", resume=True)[0])
    assert rate == pytest.approx(0.05 * 0.1**3)


def test_schedules_by_name() -> None:
    shapes = {"constant": lambda x: 1.0, "linear": lambda x: 1 - x, "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2}
    for name, shape in shapes.items():
        pyro.clear_param_store()
        rates = fit(ExpectedReturn(), program, steps=10, learning_rate=0.1, schedule=name).metrics
        assert list(rates["train/learning_rate"]) == pytest.approx([0.1 * shape(step / 10) for step in range(10)])


def test_gradients_are_shortened_and_reported_whole() -> None:
    history = fit(
        ExpectedReturn(Pathwise()), program, steps=3, optimizer=torch.optim.SGD, learning_rate=1.0, max_grad_norm=0.25
    )
    assert (history.metrics["grad/norm"] > 1).all()
    assert pyro.param("loc").norm().item() == pytest.approx(0.75, rel=0.02)  # all three point the same way, nearly


def test_the_noise_that_is_reported_follows_its_formula() -> None:
    seen: list[Tensor] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            seen.append(torch.cat([leaf.grad.reshape(-1) for g in self.param_groups for leaf in g["params"]]).double())
            super().step()

    metrics = fit(ExpectedReturn(ScoreFunction()), program, steps=30, optimizer=Recorder, learning_rate=1e-3).metrics
    assert math.isnan(metrics["grad/variance"][1])
    for step in (2, 3, 30):
        g = torch.stack(seen[:step])
        w = DECAY ** torch.arange(step - 1, -1, -1, dtype=torch.float64)
        differences = 0.5 * g.diff(dim=0).square().sum(-1)
        variance = (differences * w[1:]).sum() / w[1:].sum()
        w = w / w.sum()
        signal = (w @ g).square().sum() - variance * w.square().sum()
        assert metrics["grad/variance"][step] == pytest.approx(float(variance), rel=1e-4)
        assert metrics["grad/snr"][step] == pytest.approx(float((signal.clamp(min=0) / variance).sqrt()), rel=1e-3)
        assert metrics["grad/norm"][step] == pytest.approx(float(g[-1].norm()), rel=1e-5)


@pytest.mark.parametrize("count", [2, 20, 150])
def test_the_reported_variance_is_unbiased_where_parameters_stand_still(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, deviation = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([1.0, 0.5, 3.0])
    variances, signals = [], []
    for _ in range(12_000 // count):
        noise = GradientNoise()
        for _ in range(count):
            variance, _ = noise.update(mean + deviation * torch.randn(3, generator=generator))
        state = noise.state()
        forgotten = DECAY**count
        weights = (1 - DECAY) * (1 + forgotten) / ((1 + DECAY) * (1 - forgotten))
        variances.append(variance)
        signals.append(float(state["mean"].square().sum()) / (1 - forgotten) ** 2 - variance * weights)
    level = SUITE_FAILURE_RATE / 100
    assert ttest_1samp(variances, float(deviation.square().sum())).pvalue > level
    assert ttest_1samp(signals, float(mean.square().sum())).pvalue > level
    assert ttest_1samp(variances, 1.2 * float(deviation.square().sum())).pvalue < level


def test_a_gradient_without_noise_has_no_variance() -> None:
    noise = GradientNoise()
    found = [noise.update(torch.tensor([2.0, 1.0])) for _ in range(5)]
    assert found[-1] == (0.0, math.inf)
    empty = GradientNoise()
    empty.update(torch.zeros(2))
    assert empty.update(torch.zeros(2))[0] == 0.0
    assert math.isnan(empty.update(torch.zeros(2))[1])


def test_rewards_of_an_episode() -> None:
    """Undiscounted, unscaled, nothing where masked, whatever the estimator; in a loop as under vmap."""

    def steps(data: Tensor) -> None:
        p = pyro.param("p", torch.tensor(0.5))
        mask = torch.tensor([True, True, False, True])
        with pyro.plate("episodes", 4), pyro.poutine.scale(scale=3.0):
            for t in range(3):
                x = ppgrad.policy(f"x_{t}", dist.Bernoulli(p))
                with pyro.plate(f"assets_{t}", 2, dim=-2), pyro.poutine.mask(mask=mask):
                    ppgrad.reward(f"r_{t}", data + 0.0 * x)

    for vectorize in (True, False):
        for estimator in (ScoreFunction(), Enumerate()):
            objective = ExpectedReturn(
                estimator, discount=0.5, num_particles=2, vectorize_particles=vectorize, max_branches=10**6
            )
            fn = steps if estimator == ScoreFunction() else _one_bernoulli
            history = fit(objective, fn, args=(torch.tensor([1.0, 2.0, 100.0, 6.0]),), steps=2, learning_rate=0.0)
            expected = 3 * 2 * (1 + 2 + 6) / 4 if estimator == ScoreFunction() else 0.25
            assert history.final["rollout/ep_rew_mean"] == pytest.approx(expected)
            timesteps = 2 * 2 * 3 * 2 * 4 if estimator == ScoreFunction() else 2 * 2 * 2
            assert history.final["time/total_timesteps"] == timesteps
            pyro.clear_param_store()


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("estimator", [ScoreFunction(), Pathwise()], ids=["score", "pathwise"])
def test_episode_lengths(num_particles: int, estimator: Any) -> None:
    """An episode is as long as its draws are active; steps after its end are no timesteps."""

    def episodes() -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        lengths = torch.tensor([1, 3, 2, 2])
        with pyro.plate("episodes", 4):
            for t in range(3):
                active = lengths > t
                x = ppgrad.policy(f"x_{t}", dist.Normal(loc, 1.0).expand([4]), infer={"active": active})
                ppgrad.reward(f"r_{t}", x * active)

    history = fit(ExpectedReturn(estimator, num_particles=num_particles), episodes, steps=2)
    assert history.final["rollout/ep_len_mean"] == 2.0
    assert history.final["time/total_timesteps"] == 2 * num_particles * 8
    pyro.clear_param_store()
    assert "rollout/ep_len_mean" not in fit(ExpectedReturn(), program, steps=1).metrics


def _one_bernoulli(data: Tensor) -> None:
    p = pyro.param("q", torch.tensor(0.25))
    x = ppgrad.policy("x", dist.Bernoulli(p))
    ppgrad.reward("r", x)


def test_a_bound_has_no_rewards_and_no_fps() -> None:
    history = fit(ELBO(), model, guide, (DATA,), steps=2, evaluate_every=1, evaluation_episodes=7)
    assert list(history.metrics.columns) == [
        "train/loss", "train/learning_rate", "grad/norm", "grad/variance", "grad/snr", "train/n_updates",
        "time/iterations", "eval/loss", "time/time_elapsed",
    ]  # fmt: skip


def test_evaluation_leaves_training_alone() -> None:
    ends = []
    for options in ({}, {"evaluate_every": 3, "evaluation_episodes": 10}, {"evaluate_every": 2}):
        policy = Policy()
        objective = ExpectedReturn(ScoreFunction(LeaveOneOut("n")))
        history = fit(
            objective, episode, args=(policy,), steps=12, learning_rate=0.05,
            evaluate=(lambda: {"spread": float(torch.randn(()))}) if options else None, **options,
        )  # fmt: skip
        ends.append(policy.linear.bias.detach())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
    known = history.metrics["eval/mean_reward"].dropna()
    assert list(known.index) == [2, 4, 6, 8, 10, 12]
    assert known[12] > known[2]
    assert history.metrics["eval/spread"].dropna().nunique() == 6


def test_batch_norm_learns_in_training_and_not_in_evaluation(tmp_path: Path) -> None:
    def train(steps: int, **options: Any) -> dict[str, Tensor]:
        torch.manual_seed(2)
        actor = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
        frozen = nn.Linear(1, 1).requires_grad_(False)

        def run(actor: nn.Module, frozen: nn.Module) -> None:
            with pyro.plate("n", 4):
                mean = actor(torch.randn(4, 1)) + frozen(torch.ones(4, 1))
                ppgrad.cost("f", ppgrad.policy("a", dist.Normal(mean.squeeze(-1), 1.0)) ** 2)

        fit(ExpectedReturn(), run, args=(actor, frozen), steps=steps, **options)
        return {**actor.state_dict(), **{f"frozen.{k}": v for k, v in frozen.state_dict().items()}}

    whole = train(6)
    assert int(whole["1.num_batches_tracked"]) == 6
    train(3, checkpoint=tmp_path / "a.pt", evaluate_every=2)
    rest = train(6, checkpoint=tmp_path / "a.pt", resume=True)
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_the_global_generators_are_left_alone_under_a_seed() -> None:
    before = pyro.util.get_rng_state()
    fit(ExpectedReturn(), program, steps=2)
    after = pyro.util.get_rng_state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["random"] == after["random"]
    losses = []
    for _ in range(2):
        pyro.clear_param_store()
        losses.append(fit(ExpectedReturn(), program, steps=2, seed=None).metrics["train/loss"][1])
    assert losses[0] != losses[1]


def test_arguments_may_depend_on_the_step(tmp_path: Path) -> None:
    seen: list[int] = []

    def batch(step: int) -> tuple[Tensor]:
        seen.append(step)
        return (DATA[torch.randperm(5)[: 2 + step % 2]],)

    fit(ELBO(), model, guide, batch, steps=6)
    assert seen == [0, *range(6)]
    whole = weights()
    for steps in (3, 6):
        pyro.clear_param_store()
        fit(ELBO(), model, guide, batch, steps=steps, checkpoint=tmp_path / "run.pt", resume=True)
    assert all(torch.equal(whole[name], value) for name, value in weights().items())


def test_a_parameter_that_appears_late_is_trained() -> None:
    def late() -> None:
        x = ppgrad.policy("x", dist.Normal(pyro.param("a", torch.tensor(0.0)), 1.0))
        seen.append(1)
        if len(seen) > 5:
            x = x + pyro.param("b", torch.tensor(0.0))
        ppgrad.cost("f", (x - 3) ** 2)

    for options in ({}, {"optimizer": pyro.optim.Adam({"lr": 0.1})}):
        seen: list[int] = []
        pyro.clear_param_store()
        fit(ExpectedReturn(), late, steps=20, **options)
        assert pyro.param("b").item() > 0


def test_stopping_and_callbacks(tmp_path: Path) -> None:
    seen: list[float] = []
    options: dict[str, Any] = {
        "steps": 50,
        "stop_when": lambda metrics: metrics.get("eval/mean_reward", -math.inf) > -30,
        "callbacks": [lambda metrics: seen.append(metrics["train/loss"])],
        "evaluate_every": 5,
        "learning_rate": 0.5,
        "checkpoint": tmp_path / "run.pt",
    }
    history = fit(ExpectedReturn(), program, **options)
    assert history.stopped == "stop_when"
    assert history.steps % 5 == 0
    assert history.steps < 50
    assert len(seen) == history.steps
    again = fit(ExpectedReturn(), program, **options, resume=True)
    assert again.steps == history.steps
    assert again.stopped == "stop_when"


def test_logs(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options: dict[str, Any] = {"log_folder": tmp_path / "logs" / "a", "checkpoint": tmp_path / "run.pt"}
    fit(ExpectedReturn(), program, steps=4, evaluate_every=3, tensorboard=True, **options)
    pyro.clear_param_store()
    history = fit(ExpectedReturn(), program, steps=7, evaluate_every=3, tensorboard=True, resume=True, **options)
    table = pandas.read_csv(tmp_path / "logs" / "a" / "progress.csv", index_col="step")
    pandas.testing.assert_frame_equal(table, history.metrics, check_exact=True, check_dtype=False)
    events = EventAccumulator(str(tmp_path / "logs" / "a"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 8))
    assert [event.step for event in events.Scalars("eval/mean_reward")] == [3, 6]


def nan_later(after: int) -> Callable[[], None]:
    calls: list[int] = []

    def fails() -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        x = ppgrad.policy("x", dist.Normal(loc, 1.0))
        calls.append(1)
        ppgrad.reward("r_1", -((x - 3) ** 2))
        ppgrad.reward("r_2", x * (math.nan if len(calls) > after else 1.0))

    return fails


def test_a_reward_that_turns_nan_names_site_step_and_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(NonFinite, match=r"'r_2' is nan.*at step 9\. The last good checkpoint, .*run.pt, is of step 8"):
        fit(ExpectedReturn(), nan_later(10), steps=30, checkpoint=path, checkpoint_every=4)
    saved = torch.load(path, weights_only=True)["content"]
    assert saved["step"] == 8
    assert torch.equal(saved["parameters"]["loc"], pyro.param("loc").detach())
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()], ids=repr)
def test_a_gradient_that_is_nan_names_its_site(estimator: Any) -> None:
    def root() -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        x = ppgrad.policy("x", dist.Normal(loc, 1.0))
        ppgrad.cost("f", (x - 3) ** 2)
        ppgrad.cost("g", (loc * 0.0).sqrt() * loc)

    with pytest.raises(
        NonFinite, match=r"site 'g' the gradient of the cost with respect to parameter 'loc' is nan.*step 1"
    ):
        fit(ExpectedReturn(estimator), root, steps=3)
    assert pyro.param("loc").item() == 0.0


def test_weights_that_overflow_are_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    options = {"optimizer": torch.optim.SGD, "learning_rate": 3e38, "checkpoint": path, "checkpoint_every": 1}
    with pytest.raises(NonFinite, match=r"After step 1 parameter 'loc' is not finite.*is of step 0"):
        fit(ExpectedReturn(Pathwise()), program, steps=3, **options)
    assert torch.isfinite(torch.load(path, weights_only=True)["content"]["parameters"]["loc"]).all()


def test_ctrl_c_finishes_the_step_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    path, calls = tmp_path / "run.pt", []

    def interrupted() -> None:
        program()
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"after step 5\. Go on from .*run.pt"):
        fit(ExpectedReturn(), interrupted, steps=12, checkpoint=path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    pyro.clear_param_store()
    fit(ExpectedReturn(), interrupted, steps=12, checkpoint=path, resume=True)
    rest = weights()["loc"]
    pyro.clear_param_store()
    fit(ExpectedReturn(), program, steps=12)
    assert torch.equal(rest, weights()["loc"])


def test_a_callback_that_interrupts_leaves_the_logs_whole(tmp_path: Path) -> None:
    def stop(metrics: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(ExpectedReturn(), program, steps=3, log_folder=tmp_path, callbacks=[stop])
    assert len(pandas.read_csv(tmp_path / "progress.csv")) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"max_grad_norm": 0}, "max_grad_norm=0"),
        ({"seed": -1}, "seed=-1"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"evaluate_every": 0}, "evaluate_every=0"),
        ({"evaluation_episodes": 0}, "evaluation_episodes=0"),
        ({"resume": True}, "needs a checkpoint"),
        ({"tensorboard": True}, "log_folder="),
        ({"args": 5}, r"args=\(5,\)"),
        ({"kwargs": [1]}, r"kwargs=\[1\].*dict"),
        ({"settings": 3}, "settings=3.*dict"),
        ({"log_folder": 3}, "log_folder=3"),
        ({"checkpoint": 3}, "checkpoint=3"),
        ({"progress": "yes"}, "progress='yes'"),
        ({"evaluation_deterministic": 1}, "evaluation_deterministic=1"),
        ({"critic_optimizer": "adam"}, "critic_optimizer='adam' is no optimizer"),
        ({"optimizer": NaturalGradient}, r"Write NaturalGradient\(program\)"),
        ({"optimizer": functools.partial(NaturalGradient, lr=1.0)}, "write a policy"),
        ({"optimizer": NaturalGradient(program), "learning_rate": 0.1}, "critic_optimizer="),
        ({"evaluate": dict}, "evaluate_every"),
        ({"callbacks": print}, r"callbacks=\[print\]"),
        ({"callbacks": [3]}, r"callbacks\[0\]=3"),
        ({"stop_when": 475}, "stop_when=475"),
        ({"optimizer": "adam"}, "optimizer='adam' is no optimizer"),
        ({"optimizer": dict}, "makes|cannot be made"),
        ({"optimizer": list}, "makes .* none"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)], lr=1.0)}, "does not hold parameter 'loc'"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)], lr=1.0), "learning_rate": 0.1}, "learning_rate=0.1 beside"),
        ({"optimizer": pyro.optim.Adam({"lr": 1.0}), "learning_rate": 0.1}, "learning_rate=0.1 beside a Pyro"),
        ({"optimizer": pyro.optim.Adam({"lr": 1.0}), "schedule": "linear"}, "pyro.optim.ExponentialLR"),
        ({"schedule": "square"}, "constant, linear, cosine"),
        ({"schedule": 3}, "schedule=3"),
        ({"schedule": lr_scheduler.ExponentialLR}, "ExponentialLR cannot be made.*functools.partial"),
        ({"schedule": lambda optimizer: None}, "is no schedule"),
        (
            {"schedule": lr_scheduler.ConstantLR(torch.optim.SGD([torch.zeros(1)], lr=1.0))},
            "belongs to another optimizer",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as error:
        fit(ExpectedReturn(), program, **{"steps": 2, **options})
    assert "\n" not in str(error.value)


def test_no_objective_and_nothing_to_train() -> None:
    with pytest.raises(InvalidInput, match="objective is needed"):
        fit(ExpectedReturn, program, steps=1)

    def constant() -> None:
        ppgrad.cost("f", ppgrad.policy("x", dist.Normal(0.0, 1.0)))

    with pytest.raises(InvalidProgram, match="nothing to train"):
        fit(ExpectedReturn(), constant, steps=1)


def test_a_folder_that_cannot_be_written_is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    calls: list[int] = []
    for options in (
        {"log_folder": tmp_path / "file"},
        {"log_folder": tmp_path / "file" / "below"},
        {"checkpoint": tmp_path / "file" / "run.pt"},
        {"checkpoint": tmp_path},
    ):
        with pytest.raises(InvalidInput, match=r"file|folder"):
            fit(ExpectedReturn(), program, steps=2, callbacks=[lambda metrics: calls.append(1)], **options)
    assert not calls
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    options = {"checkpoint": tmp_path / "run.pt", "log_folder": tmp_path}
    fit(ExpectedReturn(), program, steps=2, **options)
    held = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(InvalidInput, match=r"run.pt is there already. Write resume=True"):
        fit(ExpectedReturn(), program, steps=2, **options)
    with pytest.raises(InvalidInput, match=r"progress.csv is there already"):
        fit(ExpectedReturn(), program, steps=2, log_folder=tmp_path)
    assert (tmp_path / "run.pt").read_bytes() == held
    assert fit(ExpectedReturn(), program, steps=1, resume=True, **options).steps == 2


def test_tensorboard_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'ppgrad\[train\]'"):
        fit(ExpectedReturn(), program, steps=2, tensorboard=True, log_folder=tmp_path)
    assert not list(tmp_path.iterdir())


class Recording(torch.optim.SGD):
    """Knows the gradients of its latest step."""

    gradients: dict[int, Tensor]

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        leaves = [leaf for group in self.param_groups for leaf in group["params"]]
        Recording.gradients = {id(leaf): leaf.grad.clone() for leaf in leaves}
        return loss


def shared_trunk() -> tuple[ExpectedReturn, Callable[[], object], torch.nn.Linear, torch.nn.Linear]:
    """Policy and critic share their first layer."""
    torch.manual_seed(0)
    trunk, head, value = torch.nn.Linear(2, 4), torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    mean, critic = torch.nn.Sequential(trunk, head), torch.nn.Sequential(trunk, value)
    objective = ExpectedReturn(ScoreFunction(ppgrad.Critic(critic)))

    def program() -> None:
        with pyro.plate("episodes", 8):
            state = torch.ones(8, 2)
            action = ppgrad.policy("a", dist.Normal(mean(state).squeeze(-1), 1.0), context=state)
            ppgrad.reward("r", -(action**2))

    return objective, program, trunk, head


@pytest.mark.parametrize("compile", [False, "eager"])
def test_a_tensor_with_two_owners_moves_once(compile: bool | str) -> None:
    objective, program, trunk, head = shared_trunk()
    objective.compile = compile
    before = [layer.weight.detach().clone() for layer in (trunk, head)]
    fit(objective, program, steps=1, optimizer=Recording, learning_rate=0.5)
    for layer, start in zip((trunk, head), before, strict=True):
        gradient = Recording.gradients[id(layer.weight)]
        torch.testing.assert_close(start - layer.weight.detach(), 0.5 * gradient)
        assert gradient.any()


def test_a_tensor_with_two_names_is_one_parameter() -> None:
    def model() -> None:
        pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    guide = AutoIAFNormal(model)
    found = ppgrad.gradient(ppgrad.ELBO(), model, guide, seed=0)  # creates its parameters, and takes them back
    guide()
    leaves = [leaf for leaf in guide.parameters() if leaf.requires_grad]
    assert len(ppgrad.gradient(ppgrad.ELBO(), model, guide, seed=0)) == len(leaves) == len(found)
    before = [leaf.detach().clone() for leaf in leaves]
    fit(ppgrad.ELBO(), model, guide, steps=1, optimizer=Recording, learning_rate=0.5)
    for leaf, start in zip(leaves, before, strict=True):
        torch.testing.assert_close(start - leaf.detach(), 0.5 * Recording.gradients[id(leaf)])
