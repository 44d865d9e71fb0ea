"""Expected returns of programs with masks, scales, loops and plates that are left and entered again."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor

import ppgrad
from ppgrad.core import Problem
from ppgrad.objectives import ExpectedReturn
from ppgrad.testing.problems.common import Parameters, closed_form, parameters


def masked() -> Problem:
    """Rewards of masked elements do not count; draws of masked sites still have their scores."""
    initial = {"mu": 0.4, "nu": -0.3}

    def model() -> None:
        p, mask = parameters(initial), torch.tensor([True, False, True, True])
        with pyro.plate("n", 4):
            x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0).mask(mask))
            y = ppgrad.policy("y", dist.Normal(p["nu"], 1.0).mask(False))
            with poutine.mask(mask=mask):
                ppgrad.reward("r", x * y - x**2)

    def value(p: Parameters) -> Tensor:
        return 3 * (p["mu"] * p["nu"] - p["mu"] ** 2 - 1)

    return Problem(model, ExpectedReturn, "masks on sites and rewards", exact=closed_form(initial, value))


def mixed() -> Problem:
    """k ~ Bernoulli, x | k ~ N(m_k, σ); f = (x − k)² − x."""
    initial = {"logit": -0.4, "m": [0.2, 1.7], "sigma": 0.6}

    def model() -> None:
        p = parameters(initial)
        k = ppgrad.policy("k", dist.Bernoulli(logits=p["logit"]))
        x = ppgrad.policy("x", dist.Normal(p["m"][0] * (1 - k) + p["m"][1] * k, p["sigma"]))
        ppgrad.cost("f", (x - k) ** 2 - x)

    def value(p: Parameters) -> Tensor:
        k, q = torch.tensor([0.0, 1.0]), torch.sigmoid(p["logit"])
        costs = (p["m"] - k) ** 2 + p["sigma"] ** 2 - p["m"]
        return -(torch.stack([1 - q, q]) * costs).sum()

    return Problem(model, ExpectedReturn, "discrete, then continuous", exact=closed_form(initial, value))


def scaled() -> Problem:
    """``poutine.scale`` weighs the rewards, not the scores."""
    initial = {"mu": -0.5, "logit": 0.3}

    def model() -> None:
        p = parameters(initial)
        with poutine.scale(scale=2.5):
            x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0))
            b = ppgrad.policy("b", dist.Bernoulli(logits=p["logit"]))
            ppgrad.reward("r", x * b)
        ppgrad.cost("f", x**2 + b)

    def value(p: Parameters) -> Tensor:
        q = torch.sigmoid(p["logit"])
        return 2.5 * p["mu"] * q - p["mu"] ** 2 - 1 - q

    return Problem(model, ExpectedReturn, "poutine.scale", exact=closed_form(initial, value))


def sequential_plate() -> Problem:
    """Iterations of a sequential plate, a reward in each, one after the loop."""
    initial = {"mu": 0.5, "logits": [0.2, -0.3]}

    def model() -> None:
        p = parameters(initial)
        total = torch.zeros(())
        for i in pyro.plate("i", 2):
            x = ppgrad.policy(f"x_{i}", dist.Normal(p["mu"], 1.0))
            b = ppgrad.policy(f"b_{i}", dist.Bernoulli(logits=p["logits"][i]))
            ppgrad.reward(f"r_{i}", x * b)
            total = total + x + b
        ppgrad.cost("end", total**2)

    def value(p: Parameters) -> Tensor:
        q, mu = p["logits"].sigmoid(), p["mu"]
        mean, variance = 2 * mu + q.sum(), 2 + (q * (1 - q)).sum()
        return (mu * q).sum() - mean**2 - variance

    return Problem(model, ExpectedReturn, "a sequential plate", exact=closed_form(initial, value))


def episodes() -> Problem:
    """Three steps of x ← x + a, a ~ N(θx + β, ½), in a plate of episodes; r = −x²."""
    initial = {"theta": -0.4, "beta": 0.3}

    def model() -> None:
        p = parameters(initial)
        x = torch.tensor([1.0, -0.5])
        with pyro.plate("episodes", 2):
            for t in pyro.markov(range(3)):
                a = ppgrad.policy(f"a_{t}", dist.Normal(p["theta"] * x + p["beta"], 0.5), context=x.unsqueeze(-1))
                x = x + a
                ppgrad.reward(f"r_{t}", -(x**2))

    def value(p: Parameters) -> Tensor:
        mean, variance, total = torch.tensor([1.0, -0.5]), torch.zeros(2), torch.zeros(())
        for _ in range(3):
            mean = (1 + p["theta"]) * mean + p["beta"]
            variance = (1 + p["theta"]) ** 2 * variance + 0.25
            total = total - (mean**2 + variance).sum()
        return total

    return Problem(model, ExpectedReturn, "episodes with rewards to go", exact=closed_form(initial, value))


def local_global_local() -> Problem:
    """x_n in a plate, w ~ N(Σ x_n, 1) outside of it, then a cost w x_n inside: slices are coupled."""
    initial = {"mu": 0.6, "nu": 0.2}

    def model() -> None:
        p, plate = parameters(initial), pyro.plate("n", 2)
        with plate:
            x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0))
        w = ppgrad.policy("w", dist.Normal(x.sum(-1) + p["nu"], 1.0))
        with plate:
            ppgrad.reward("r", w.unsqueeze(-1) * torch.tensor([1.0, 2.0]) - x)

    def value(p: Parameters) -> Tensor:
        return 3 * (2 * p["mu"] + p["nu"]) - 2 * p["mu"]

    return Problem(model, ExpectedReturn, "a plate left and entered again", exact=closed_form(initial, value))


def random_transition() -> Problem:
    """A pathwise action that feeds the parameters of a random transition (Pyro trap 10)."""
    initial = {"mu": 0.3}

    def model() -> None:
        p = parameters(initial)
        a = ppgrad.policy("a", dist.Normal(p["mu"], 0.5))
        jump = pyro.sample("jump", dist.Bernoulli(torch.sigmoid(a)))
        ppgrad.reward("r", 3 * jump + a * jump)

    def value(p: Parameters) -> Tensor:
        nodes = torch.linspace(-8, 8, 4001, dtype=torch.float64)
        weights = torch.exp(-0.5 * nodes**2)
        a = p["mu"] + 0.5 * nodes
        return ((weights / weights.sum()) * torch.sigmoid(a) * (3 + a)).sum()

    return Problem(model, ExpectedReturn, "a random transition", exact=closed_form(initial, value))


def discounted() -> Problem:
    """Two rewards under γ = ½."""
    initial = {"mu": 0.8}

    def model() -> None:
        p = parameters(initial)
        x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0))
        ppgrad.reward("r_0", x)
        y = ppgrad.policy("y", dist.Normal(x + p["mu"], 1.0))
        ppgrad.reward("r_1", y**2)

    def value(p: Parameters) -> Tensor:
        return p["mu"] + 0.5 * (4 * p["mu"] ** 2 + 2)

    return Problem(model, ExpectedReturn, "a discount", exact=closed_form(initial, value), options={"discount": 0.5})


def nested_loops() -> Problem:
    """Sequential plates, one inside the other, walked twice: actions first, rewards later."""
    initial = {"outer": [0.3, -0.4], "inner": 0.5}

    def model() -> None:
        p = parameters(initial)
        outer, inner = pyro.plate("i", 2), [pyro.plate(f"j_{i}", 2) for i in range(2)]
        a, b = {}, {}
        for i in outer:
            a[i] = ppgrad.policy(f"a_{i}", dist.Bernoulli(logits=p["outer"][i]))
            for j in inner[i]:
                b[i, j] = ppgrad.policy(f"b_{i}_{j}", dist.Bernoulli(logits=p["inner"] * (1 + j)))
        for i in outer:
            for j in inner[i]:
                ppgrad.reward(f"r_{i}_{j}", (1 + i) * a[i] * b[i, j])

    def value(p: Parameters) -> Tensor:
        q, r = torch.sigmoid(p["outer"]), torch.sigmoid(p["inner"]) + torch.sigmoid(2 * p["inner"])
        return (q[0] + 2 * q[1]) * r

    return Problem(model, ExpectedReturn, "loops walked twice", exact=closed_form(initial, value))
