"""over="episodes": each element of a plate is a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import (
    IWELBO,
    VIMCO,
    BestOf,
    CVaR,
    Divergence,
    EntropicRisk,
    ExpectedReturn,
    GroupRelative,
    InvalidAssignment,
    InvalidInput,
    InvalidProgram,
    LeaveOneOut,
    LocalExpectation,
    Pathwise,
    ScoreFunction,
    Unsupported,
)
from ppgrad.testing.problems import parameters

FAILURE_RATE = 1e-8
INITIAL = {"m": 0.3, "s": 1.5, "l": -0.6}


def one_episode() -> None:
    """Two steps, the first discrete, the second continuous."""
    p = parameters(INITIAL)
    k = ppgrad.policy("k", dist.Bernoulli(logits=p["l"]))
    ppgrad.reward("r", 0.5 * k)
    x = ppgrad.policy("x", dist.Normal(p["m"] + k, p["s"]))
    ppgrad.reward("q", x - 0.2 * x**2)


def episodes(number: int, subsample: int | None = None) -> Callable[[], None]:
    def program() -> None:
        with pyro.plate("episodes", number, subsample_size=subsample, dim=-1):
            one_episode()

    return program


def stepped() -> None:
    """Six episodes with three parallel steps each, in a plate inside."""
    p = parameters(INITIAL)
    with pyro.plate("episodes", 6, dim=-2), pyro.plate("steps", 3, dim=-1):
        x = ppgrad.policy("x", dist.Normal(p["m"], p["s"]))
        ppgrad.reward("r", x - 0.2 * x**2)


def one_stepped() -> None:
    p = parameters(INITIAL)
    with pyro.plate("steps", 3, dim=-1):
        x = ppgrad.policy("x", dist.Normal(p["m"], p["s"]))
        ppgrad.reward("r", x - 0.2 * x**2)


OBJECTIVES: dict[str, Callable[..., Any]] = {
    "cvar": lambda **options: CVaR(level=0.4, **options),
    "entropic": lambda **options: EntropicRisk(beta=-0.7, **options),
    "best": lambda **options: BestOf(k=3, **options),
}
SERVED: dict[str, Any] = {
    "score": {"k": ScoreFunction(), "x": ScoreFunction()},
    "mixed": {"k": ScoreFunction(LeaveOneOut()), "x": Pathwise()},
    "vimco": {"k": ScoreFunction(VIMCO()), "x": ScoreFunction(VIMCO())},
}


def same(one: ppgrad.Measurement, other: ppgrad.Measurement, factor: float = 1.0) -> None:
    assert set(one.mean) == set(other.mean)
    for name in one.mean:
        error = (one.mcse[name] ** 2 + (factor * other.mcse[name]) ** 2).sqrt().clamp(min=1e-6)
        z = (one.mean[name] - factor * other.mean[name]) / error
        assert bool((torch.erfc(z.abs() / 2**0.5) > FAILURE_RATE).all()), name


@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("number", "subsample", "runs"), [(6, None, 1), (3, None, 2), (12, 6, 1)])
def test_episodes_are_runs(objective: str, served: str, number: int, subsample: int | None, runs: int) -> None:
    """The expectation is that of six runs of a program of one episode."""
    chosen = SERVED["score" if served == "vimco" and runs == 1 else served]  # VIMCO asks for two runs
    options = {"sites": chosen, "num_particles": 2}
    over = OBJECTIVES[objective](
        over="episodes", num_importance=max(runs, 3) if objective == "best" else runs, **options
    )
    over.num_importance = runs  # a best of three needs three runs, and the plate has them
    alone = OBJECTIVES[objective](num_importance=6, **options)
    found = ppgrad.measure(over, episodes(number, subsample), replicates=6000)
    same(found, ppgrad.measure(alone, one_episode, replicates=6000))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_plate_inside_of_the_episodes(objective: str) -> None:
    over = OBJECTIVES[objective](estimator=ScoreFunction(), over="episodes", num_importance=4)
    alone = OBJECTIVES[objective](estimator=ScoreFunction(), num_importance=24)
    same(ppgrad.measure(over, stepped, replicates=6000), ppgrad.measure(alone, one_stepped, replicates=6000))


def test_the_risk_of_one_episode_is_not_that_of_their_sum() -> None:
    program = episodes(16)
    losses = [
        CVaR(level=0.1, num_importance=32, over=over, num_particles=40).loss(program, None)
        for over in ("episodes", None)
    ]
    alone = CVaR(level=0.1, num_importance=512, num_particles=40).loss(one_episode, None)
    assert abs(losses[0] - alone) < abs(losses[1] - alone) / 10


@pytest.mark.parametrize("estimator", [ScoreFunction(), Pathwise()], ids=repr)
def test_a_draw_that_all_episodes_share(estimator: ppgrad.Estimator) -> None:
    """It acts on every run, and is charged with all; the discrete one inside with its own."""

    def program() -> None:
        p = parameters(INITIAL)
        w = pyro.sample("w", dist.Normal(p["m"], 0.5))
        with pyro.plate("episodes", 4):
            k = ppgrad.policy("k", dist.Bernoulli(logits=p["l"] + w))
            ppgrad.reward("r", k * w - 0.3 * w**2)

    sites = {"w": estimator, "k": ScoreFunction()}
    objective = EntropicRisk(beta=1.0, num_importance=1, over="episodes", sites=sites)
    reference = integral()
    found = ppgrad.measure(objective, program, replicates=20_000, reference=reference)
    assert all(bool((p > FAILURE_RATE).all()) for p in found.p_value.values())


def integral() -> dict[str, torch.Tensor]:
    """∇ E log ¼ Σ exp(R_i), over the shared draw by quadrature, over the number of ones by a sum."""
    m, logit = (torch.tensor(INITIAL[name], dtype=torch.float64, requires_grad=True) for name in ("m", "l"))
    nodes = torch.linspace(-7, 7, 1401, dtype=torch.float64)
    chances = torch.exp(-0.5 * nodes**2)
    w = m + 0.5 * nodes
    total = torch.zeros((), dtype=torch.float64)
    for ones in range(5):
        log_chance = dist.Binomial(4, logits=logit + w).log_prob(torch.tensor(float(ones), dtype=torch.float64))
        best = (ones * w.exp() + (4 - ones)).log() - torch.tensor(4.0).log() - 0.3 * w**2
        total = total + (chances / chances.sum() * log_chance.exp() * best).sum()
    gradients = torch.autograd.grad(total, [m, logit])
    return {"m": gradients[0], "l": gradients[1], "s": torch.zeros(())}


def test_episodes_that_meet() -> None:
    """What an episode earns depends on the others' draws: a draw is charged with all of them."""

    def program() -> None:
        p = parameters(INITIAL)
        with pyro.plate("episodes", 3):
            x = ppgrad.policy("x", dist.Normal(p["m"], p["s"]))
            ppgrad.reward("r", x.mean() - 0.3 * (x - x.mean()) ** 2)

    found = []
    for estimator in (ScoreFunction(), Pathwise()):
        objective = CVaR(estimator, level=0.4, num_importance=2, over="episodes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the slices of the plate are not apart
            found.append(ppgrad.measure(objective, program, replicates=20_000))
    same(*found)


def test_a_program_in_a_loop() -> None:
    def looped() -> None:
        if torch.rand(()).item() < 2.0:
            episodes(6)()

    over = CVaR(ScoreFunction(), level=0.4, num_importance=2, over="episodes")
    alone = CVaR(ScoreFunction(), level=0.4, num_importance=12)
    same(ppgrad.measure(over, looped, replicates=300), ppgrad.measure(alone, one_episode, replicates=6000))


@pytest.mark.parametrize(("particles", "advantage"), [(1, "rloo"), (3, "rloo"), (1, "dr_grpo")])
def test_a_group_of_episodes(particles: int, advantage: Any) -> None:
    group = GroupRelative(over="episodes", advantage=advantage, num_particles=particles)
    found = ppgrad.measure(group, episodes(4), replicates=10_000)
    plain = ppgrad.measure(ExpectedReturn(ScoreFunction()), episodes(4), replicates=10_000)
    same(found, plain, 1.0 if advantage == "rloo" else 0.75)


def test_a_group_of_episodes_is_leave_one_out() -> None:
    for seed in range(3):
        group = ppgrad.gradient(GroupRelative(over="episodes", num_particles=1), episodes(5), seed=seed)
        baseline = ExpectedReturn(ScoreFunction(LeaveOneOut(over="episodes")))
        theirs = ppgrad.gradient(baseline, episodes(5), seed=seed)
        for name, gradient in group.items():
            torch.testing.assert_close(gradient, theirs[name])


def test_bad_input() -> None:
    def outside() -> None:
        episodes(3)()
        ppgrad.reward("late", torch.tensor(1.0))

    def mean() -> None:
        with pyro.plate("episodes", 3):
            x = ppgrad.policy("x", dist.Normal(parameters(INITIAL)["m"], 1.0))
        ppgrad.reward("r", x.mean())

    for bound in (IWELBO, Divergence):
        with pytest.raises(InvalidInput, match="over= is for returns"):
            bound(over="episodes")
    with pytest.raises(InvalidInput, match="has 3 runs"):
        ppgrad.gradient(BestOf(k=4, num_importance=1, over="episodes"), episodes(3))
    with pytest.raises(InvalidInput, match="over is the name of a plate"):
        CVaR(over=3)
    with pytest.raises(InvalidInput, match="over is the name of a plate"):
        GroupRelative(over=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidAssignment, match="Its plates: episodes"):
        ppgrad.gradient(CVaR(over="episode"), episodes(3))
    with pytest.raises(InvalidAssignment, match="Its plates: episodes"):
        ppgrad.gradient(GroupRelative(over="episode"), episodes(3))
    with pytest.raises(InvalidProgram, match="What site 'late' costs"):
        ppgrad.gradient(CVaR(over="episodes"), outside)
    with pytest.raises(InvalidProgram, match="its elements are no group"):
        ppgrad.gradient(GroupRelative(over="episodes"), mean)
    with pytest.raises(Unsupported, match="LocalExpectation cannot serve site 'k'"):
        ppgrad.gradient(CVaR(sites={"k": LocalExpectation()}, over="episodes"), episodes(3))
    sites = {"k": ScoreFunction(LeaveOneOut(over="episodes"))}
    with pytest.raises(Unsupported, match="compares the elements of a plate"):
        ppgrad.gradient(CVaR(sites=sites, over="episodes"), episodes(3))
    with pytest.raises(Unsupported, match="has no second derivative"):
        ppgrad.hessian(BestOf(over="episodes", sites={"*": ScoreFunction()}), episodes(2))
