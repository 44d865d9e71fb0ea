"""Small programs whose exact gradients are known in closed form, apart from the engine.

Each function returns a `Problem`. Its exact gradient is the derivative of an expectation that is
written out by hand as a function of the parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor

import ppgrad
from ppgrad.core import Problem
from ppgrad.objectives import (
    ELBO,
    IWELBO,
    BestOf,
    CVaR,
    EntropicRisk,
    ExpectedReturn,
    GroupRelative,
    KLRegularized,
    MaxEntReturn,
    RenyiELBO,
    VarGrad,
)

Parameters = Mapping[str, Tensor]


def parameters(initial: Mapping[str, object]) -> Parameters:
    """The program's parameters, from the param store."""
    return {name: pyro.param(name, torch.as_tensor(value) * 1.0) for name, value in initial.items()}


def closed_form(
    initial: Mapping[str, object], value: Callable[[Parameters], Tensor]
) -> Callable[[], dict[str, Tensor]]:
    """The gradient of ``value``, the expectation written out, at the initial parameters."""

    def exact() -> dict[str, Tensor]:
        leaves = {name: (torch.as_tensor(v) * 1.0).requires_grad_() for name, v in initial.items()}
        gradients = torch.autograd.grad(value(leaves), list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True))

    return exact


def all_problems() -> dict[str, Problem]:
    """Every problem of this file, by name."""
    builders = (
        normal_plate, gamma, multivariate_normal, log_normal, independent_normal, masked, mixture, bernoulli_chain,
        coupled_plate, mixed, normal_chain, scaled, sequential_plate, episodes, local_global_local,
        conjugate_elbo, discrete_elbo, subsampled_elbo, random_transition, discounted, poisson,
        importance_discrete, importance_mixed, renyi, entropic_risk, max_ent_return,
        sequential_elbo, nested_loops, categoricals, one_hot, binomial, geometric, gamma_rate, normal_vectors,
        renyi_continuous, importance_hierarchical, tail_risk, best_of, group_relative,
        kl_regularized, kl_as_loss, var_grad,
    )  # fmt: skip
    return {builder.__name__: builder() for builder in builders}


def normal_plate() -> Problem:
    """x_n ~ N(μ, σ); f = Σ (x_n − k_n)²."""
    initial = {"mu": 0.7, "sigma": 0.8}

    def model() -> None:
        p, k = parameters(initial), torch.tensor([0.0, 0.5, 1.0])
        with pyro.plate("n", 3):
            x = ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"]), context=k.unsqueeze(-1))
            ppgrad.cost("f", (x - k) ** 2)

    def value(p: Parameters) -> Tensor:
        k = torch.tensor([0.0, 0.5, 1.0])
        return -((p["mu"] - k) ** 2 + p["sigma"] ** 2).sum()

    return Problem(model, ExpectedReturn, "Normal sites in a plate", exact=closed_form(initial, value))


def gamma() -> Problem:
    """x ~ Gamma(a, b); r = x, J = a / b."""
    initial = {"a": 2.0, "b": 1.5}

    def model() -> None:
        p = parameters(initial)
        ppgrad.reward("r", ppgrad.policy("x", dist.Gamma(p["a"], p["b"])))

    return Problem(model, ExpectedReturn, "a Gamma site", exact=closed_form(initial, lambda p: p["a"] / p["b"]))


def multivariate_normal() -> Problem:
    """x ~ N(m, LLᵀ); f = xᵀAx, J = −tr(ALLᵀ) − mᵀAm."""
    initial = {"m": [0.5, -0.3], "scale_tril": [[1.0, 0.0], [0.4, 0.7]]}
    a = [[1.0, 0.3], [0.3, 2.0]]

    def model() -> None:
        p, matrix = parameters(initial), torch.tensor(a) * 1.0
        x = ppgrad.policy("x", dist.MultivariateNormal(p["m"], scale_tril=p["scale_tril"].tril()))
        ppgrad.cost("f", x @ matrix @ x)

    def value(p: Parameters) -> Tensor:
        matrix, tril = torch.tensor(a) * 1.0, p["scale_tril"].tril()
        return -(matrix @ tril @ tril.T).trace() - p["m"] @ matrix @ p["m"]

    return Problem(model, ExpectedReturn, "a full covariance", exact=closed_form(initial, value))


def log_normal() -> Problem:
    """x = exp(z), z ~ N(μ, σ), as a transformed distribution; J = exp(μ + σ²/2)."""
    initial = {"mu": 0.2, "sigma": 0.5}

    def model() -> None:
        p = parameters(initial)
        fn = dist.TransformedDistribution(
            dist.Normal(p["mu"], p["sigma"]), [dist.transforms.ExpTransform(cache_size=1)]
        )
        ppgrad.reward("r", ppgrad.policy("x", fn))

    def value(p: Parameters) -> Tensor:
        return (p["mu"] + p["sigma"] ** 2 / 2).exp()

    return Problem(model, ExpectedReturn, "a cached transform", exact=closed_form(initial, value))


def independent_normal() -> Problem:
    """x ~ N(m, diag s²) with ``to_event``; r = x₀x₁ − Σ x²."""
    initial = {"m": [0.5, -1.0], "s": [0.6, 0.9]}

    def model() -> None:
        p = parameters(initial)
        x = ppgrad.policy("x", dist.Normal(p["m"], p["s"]).to_event(1))
        ppgrad.reward("r", x[0] * x[1] - (x**2).sum())

    def value(p: Parameters) -> Tensor:
        return p["m"][0] * p["m"][1] - (p["m"] ** 2 + p["s"] ** 2).sum()

    return Problem(model, ExpectedReturn, "an Independent site", exact=closed_form(initial, value))


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


def mixture() -> Problem:
    """x ~ Σ w_k N(m_k, 1); r = −x², J = −Σ w_k (m_k² + 1)."""
    initial = {"logits": [0.2, -0.4], "m": [-1.0, 1.5]}

    def model() -> None:
        p = parameters(initial)
        components = dist.Normal(p["m"], 1.0)
        x = ppgrad.policy("x", dist.MixtureSameFamily(dist.Categorical(logits=p["logits"]), components))
        ppgrad.cost("f", x**2)

    def value(p: Parameters) -> Tensor:
        return -(p["logits"].softmax(-1) * (p["m"] ** 2 + 1)).sum()

    return Problem(model, ExpectedReturn, "a mixture", exact=closed_form(initial, value))


def bernoulli_chain() -> Problem:
    """Three dependent layers: Bernoulli, Categorical, Bernoulli, with costs in between."""
    initial = {"first": 0.3, "second": [[0.1, -0.5, 0.4], [-0.2, 0.3, 0.6]], "third": [0.5, -0.1, -0.7]}

    def model() -> None:
        p = parameters(initial)
        a = ppgrad.policy("a", dist.Bernoulli(logits=p["first"]))
        ppgrad.reward("r_a", a * 0.5)
        b = ppgrad.policy("b", dist.Categorical(logits=p["second"].index_select(0, a.long().reshape(1)).squeeze(0)))
        ppgrad.cost("f_b", (b - a) ** 2)
        logit = p["third"].index_select(0, b.reshape(1)).squeeze(0) + a
        c = ppgrad.policy("c", dist.Bernoulli(logits=logit))
        ppgrad.reward("r_c", c * b - 2 * c * a)

    def value(p: Parameters) -> Tensor:
        total = torch.zeros(())
        for a, b, c in itertools.product((0, 1), (0, 1, 2), (0, 1)):
            probability = torch.sigmoid(p["first"] * (2 * a - 1)) * p["second"][a].softmax(-1)[b]
            probability = probability * torch.sigmoid((p["third"][b] + a) * (2 * c - 1))
            total = total + probability * (a * 0.5 - (b - a) ** 2 + c * b - 2 * c * a)
        return total

    return Problem(model, ExpectedReturn, "a discrete chain", exact=closed_form(initial, value))


def coupled_plate() -> Problem:
    """b_n ~ Bernoulli in a plate; a cost outside the plate that couples its elements, one inside."""
    initial = {"logits": [0.3, -0.2, 0.8]}

    def model() -> None:
        p = parameters(initial)
        with pyro.plate("n", 3):
            b = ppgrad.policy("b", dist.Bernoulli(logits=p["logits"]), context=torch.arange(3))
            ppgrad.reward("inside", b * torch.tensor([1.0, 2.0, -1.0]))
        ppgrad.cost("outside", (b.sum(-1) - 1) ** 2)

    def value(p: Parameters) -> Tensor:
        total = torch.zeros(())
        for b in itertools.product((0.0, 1.0), repeat=3):
            values = torch.tensor(b)
            probability = torch.sigmoid(p["logits"] * (2 * values - 1)).prod()
            reward = (values * torch.tensor([1.0, 2.0, -1.0])).sum() - (values.sum() - 1) ** 2
            total = total + probability * reward
        return total

    return Problem(model, ExpectedReturn, "plate elements coupled", exact=closed_form(initial, value))


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


def normal_chain() -> Problem:
    """x ~ N(μ, 1), y ~ N(wx, 1); r = xy − y², so that x acts on y through its parameters."""
    initial = {"mu": 0.5, "w": 0.8}

    def model() -> None:
        p = parameters(initial)
        x = ppgrad.policy("x", dist.Normal(p["mu"], 1.0))
        y = ppgrad.policy("y", dist.Normal(p["w"] * x, 1.0))
        ppgrad.reward("r", x * y - y**2)

    def value(p: Parameters) -> Tensor:
        return (p["w"] - p["w"] ** 2) * (p["mu"] ** 2 + 1) - 1

    return Problem(model, ExpectedReturn, "one site feeding another", exact=closed_form(initial, value))


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


def conjugate_elbo() -> Problem:
    """z ~ N(0, 1), x_n | z ~ N(z, 1); q = N(m, s)."""
    initial, data = {"m": 0.3, "s": 0.7}, (1.0, 2.0, -0.5)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("n", 3):
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(data) * 1.0)

    def guide() -> None:
        p = parameters(initial)
        pyro.sample("z", dist.Normal(p["m"], p["s"]))

    def value(p: Parameters) -> Tensor:
        likelihood = -0.5 * ((torch.tensor(data) - p["m"]) ** 2 + p["s"] ** 2).sum()
        return likelihood - 0.5 * (p["m"] ** 2 + p["s"] ** 2) + p["s"].log()

    return Problem(model, ELBO, "a Gaussian ELBO", guide, exact=closed_form(initial, value))


def discrete_elbo() -> Problem:
    """z_n ~ Bernoulli(⅓) in a plate, x_n | z_n ~ N(z_n w, 1) with w a parameter of the model."""
    initial, data = {"logits": [0.4, -0.6], "w": 1.5}, (1.2, 0.1)

    def model() -> None:
        p = parameters({"w": initial["w"]})
        with pyro.plate("n", 2):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(1 / 3)))
            pyro.sample("x", dist.Normal(z * p["w"], 1.0), obs=torch.tensor(data) * 1.0)

    def guide() -> None:
        p = parameters({"logits": initial["logits"]})
        with pyro.plate("n", 2):
            pyro.sample("z", dist.Bernoulli(logits=p["logits"]))

    def value(p: Parameters) -> Tensor:
        total = torch.zeros(())
        for z, prior in ((0.0, 2 / 3), (1.0, 1 / 3)):
            q = torch.sigmoid(p["logits"] * (2 * z - 1))
            log_joint = torch.tensor(prior).log() - 0.5 * (torch.tensor(data) - z * p["w"]) ** 2
            total = total + (q * (log_joint - q.log())).sum()
        return total

    return Problem(model, ELBO, "a discrete guide", guide, exact=closed_form(initial, value))


def subsampled_elbo() -> Problem:
    """A global and a local latent, the local plate subsampled 2 of 4; the bound is the full one's."""
    initial, data = {"m": 0.2, "s": 0.6, "a": [0.1, -0.3, 0.5, 0.9]}, (1.0, 0.0, -1.0, 2.0)

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("n", 4, subsample_size=2) as i:
            y = pyro.sample("y", dist.Normal(z, 1.0))
            pyro.sample("x", dist.Normal(y, 1.0), obs=(torch.tensor(data) * 1.0)[i])

    def guide() -> None:
        p = parameters(initial)
        pyro.sample("z", dist.Normal(p["m"], p["s"]))
        with pyro.plate("n", 4, subsample_size=2) as i:
            pyro.sample("y", dist.Normal(p["a"][i], 0.5))

    def value(p: Parameters) -> Tensor:
        local = (p["a"] - p["m"]) ** 2 + p["s"] ** 2 + (torch.tensor(data) - p["a"]) ** 2
        return -0.5 * local.sum() - 0.5 * (p["m"] ** 2 + p["s"] ** 2) + p["s"].log()

    return Problem(model, ELBO, "a subsampled plate", guide, exact=closed_form(initial, value))


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


def poisson() -> Problem:
    """n ~ Poisson(λ); r = −(n − 2)², J = −λ − (λ − 2)²."""
    initial = {"rate": 1.3}

    def model() -> None:
        p = parameters(initial)
        n = ppgrad.policy("n", dist.Poisson(p["rate"]))
        ppgrad.cost("f", (n - 2) ** 2)

    def value(p: Parameters) -> Tensor:
        return -p["rate"] - (p["rate"] - 2) ** 2

    return Problem(model, ExpectedReturn, "an infinite support", exact=closed_form(initial, value))


def importance_discrete() -> Problem:
    """An importance-weighted bound of two samples, two Bernoulli latents in a plate."""
    initial, data = {"logits": [0.4, -0.6], "w": 1.5}, (1.2, 0.1)

    def model() -> None:
        p = parameters({"w": initial["w"]})
        with pyro.plate("n", 2):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(1 / 3)))
            pyro.sample("x", dist.Normal(z * p["w"], 1.0), obs=torch.tensor(data) * 1.0)

    def guide() -> None:
        p = parameters({"logits": initial["logits"]})
        with pyro.plate("n", 2):
            pyro.sample("z", dist.Bernoulli(logits=p["logits"]))

    def value(p: Parameters) -> Tensor:
        samples = [torch.tensor(z) for z in itertools.product((0.0, 1.0), repeat=2)]
        log_q = torch.stack([torch.nn.functional.logsigmoid(p["logits"] * (2 * z - 1)).sum() for z in samples])
        prior = torch.tensor([2 / 3, 1 / 3]).log()
        likelihood = torch.stack(
            [(prior[z.long()] - 0.5 * (torch.tensor(data) - z * p["w"]) ** 2).sum() for z in samples]
        ) - math.log(2 * math.pi)
        return _bound_of_two(log_q.exp(), likelihood - log_q)

    options = {"num_importance": 2}
    return Problem(
        model, IWELBO, "a discrete importance-weighted bound", guide, (), closed_form(initial, value), options
    )


def importance_mixed() -> Problem:
    """An importance-weighted bound of two samples, z ~ Bernoulli, then y | z ~ N(m_z, s)."""
    initial, datum = {"logit": 0.3, "m": [0.2, 0.9], "s": 0.7}, 0.8

    def model() -> None:
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
        y = pyro.sample("y", dist.Normal(z, 1.0))
        pyro.sample("x", dist.Normal(y, 1.0), obs=torch.tensor(datum) * 1.0)

    def guide() -> None:
        p = parameters(initial)
        z = pyro.sample("z", dist.Bernoulli(logits=p["logit"]))
        pyro.sample("y", dist.Normal(p["m"][0] * (1 - z) + p["m"][1] * z, p["s"]))

    def value(p: Parameters) -> Tensor:
        nodes = torch.linspace(-7, 7, 281, dtype=torch.float64)
        normal = torch.exp(-0.5 * nodes**2)
        normal = normal / normal.sum()
        q = torch.sigmoid(p["logit"])
        weights, log_weights = [], []
        for z, q_z in ((0.0, 1 - q), (1.0, q)):
            y = p["m"][int(z)] + p["s"] * nodes
            log_joint = math.log(0.5) - 0.5 * (y - z) ** 2 - 0.5 * (datum - y) ** 2 - math.log(2 * math.pi)
            log_q = q_z.log() - 0.5 * nodes**2 - p["s"].log() - 0.5 * math.log(2 * math.pi)
            weights.append(q_z * normal)
            log_weights.append(log_joint - log_q)
        return _bound_of_two(torch.cat(weights), torch.cat(log_weights))

    options = {"num_importance": 2}
    return Problem(model, IWELBO, "a mixed importance-weighted bound", guide, (), closed_form(initial, value), options)


def renyi() -> Problem:
    """A Rényi bound of order 3 from two samples of three values."""
    initial, likelihood = {"logits": [0.2, -0.5, 0.4]}, (0.5, 0.2, 0.9)

    def model() -> None:
        z = pyro.sample("z", dist.Categorical(torch.ones(3) / 3))
        chances = torch.tensor(likelihood) * 1.0
        pyro.sample("x", dist.Bernoulli(chances.index_select(0, z.reshape(1)).squeeze(0)), obs=torch.tensor(1.0))

    def guide() -> None:
        pyro.sample("z", dist.Categorical(logits=parameters(initial)["logits"]))

    def value(p: Parameters) -> Tensor:
        log_q = p["logits"].log_softmax(-1)
        return _bound_of_two(log_q.exp(), (torch.tensor(likelihood) / 3).log() - log_q, sharpness=-2.0)

    options = {"num_importance": 2, "alpha": 3.0}
    return Problem(model, RenyiELBO, "a Rényi bound", guide, (), closed_form(initial, value), options)


def entropic_risk() -> Problem:
    """Two Bernoulli steps, risk-averse, from two runs."""
    initial = {"first": 0.4, "second": -0.3}

    def model() -> None:
        p = parameters(initial)
        a = ppgrad.policy("a", dist.Bernoulli(logits=p["first"]))
        ppgrad.reward("r_a", 2 * a)
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["second"] + a))
        ppgrad.reward("r_b", b - 3 * a * b)

    def value(p: Parameters) -> Tensor:
        probabilities, returns = [], []
        for a, b in itertools.product((0, 1), repeat=2):
            chance = torch.sigmoid(p["first"] * (2 * a - 1)) * torch.sigmoid((p["second"] + a) * (2 * b - 1))
            probabilities.append(chance)
            returns.append(2.0 * a + b - 3 * a * b)
        return _bound_of_two(torch.stack(probabilities), torch.tensor(returns) * 1.0, sharpness=-0.8)

    options = {"num_importance": 2, "beta": -0.8}
    return Problem(model, EntropicRisk, "a risk-averse return", exact=closed_form(initial, value), options=options)


def max_ent_return() -> Problem:
    """A Bernoulli and a Normal action, with an entropy bonus."""
    initial = {"logit": 0.7, "mu": 0.4, "sigma": 0.9}

    def model() -> None:
        p = parameters(initial)
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["logit"]))
        x = ppgrad.policy("x", dist.Normal(p["mu"] + b, p["sigma"]))
        ppgrad.cost("f", x**2)

    def value(p: Parameters) -> Tensor:
        q = torch.sigmoid(p["logit"])
        entropy = -q * q.log() - (1 - q) * (1 - q).log() + p["sigma"].log() + 0.5 * math.log(2 * math.pi * math.e)
        return -q * (p["mu"] + 1) ** 2 - (1 - q) * p["mu"] ** 2 - p["sigma"] ** 2 + 0.3 * entropy

    return Problem(
        model, MaxEntReturn, "an entropy bonus", exact=closed_form(initial, value), options={"temperature": 0.3}
    )


def sequential_elbo() -> Problem:
    """A guide and a model that walk the same sequential plate, a global site before it."""
    initial, data = {"m": 0.3, "logits": [0.4, -0.6]}, (1.2, 0.1)

    def model() -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        for i in pyro.plate("i", 2):
            z = pyro.sample(f"z_{i}", dist.Bernoulli(torch.tensor(1 / 3)))
            pyro.sample(f"x_{i}", dist.Normal(z + w, 1.0), obs=torch.tensor(data[i]) * 1.0)

    def guide() -> None:
        p = parameters(initial)
        pyro.sample("w", dist.Normal(p["m"], 0.5))
        for i in pyro.plate("i", 2):
            pyro.sample(f"z_{i}", dist.Bernoulli(logits=p["logits"][i]))

    def value(p: Parameters) -> Tensor:
        total = -0.5 * p["m"] ** 2
        for z, prior in ((0.0, 2 / 3), (1.0, 1 / 3)):
            q = torch.sigmoid(p["logits"] * (2 * z - 1))
            likelihood = -0.5 * (torch.tensor(data) - z - p["m"]) ** 2
            total = total + (q * (math.log(prior) + likelihood - q.log())).sum()
        return total

    return Problem(model, ELBO, "a sequential plate in guide and model", guide, exact=closed_form(initial, value))


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


def categoricals() -> Problem:
    """x_n ~ Categorical in a plate; a cost of each and one that couples them."""
    initial = {"logits": [[0.3, -0.6, 0.1, 0.8], [-0.2, 0.5, 1.2, -1.0]]}
    gains = [0.5, -1.0, 2.0, 0.3]

    def model() -> None:
        p, table = parameters(initial), torch.tensor(gains) * 1.0
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.Categorical(logits=p["logits"]))
            ppgrad.reward("inside", table.index_select(0, x))
        ppgrad.cost("outside", (x.sum(-1) - 2) ** 2)

    def value(p: Parameters) -> Tensor:
        log_q, total = p["logits"].log_softmax(-1), torch.zeros(())
        for a, b in itertools.product(range(4), repeat=2):
            total = total + (log_q[0, a] + log_q[1, b]).exp() * (gains[a] + gains[b] - (a + b - 2) ** 2)
        return total

    return Problem(model, ExpectedReturn, "Categorical sites, coupled", exact=closed_form(initial, value))


def one_hot() -> Problem:
    """x_i ~ OneHotCategorical, two of them in one event; f = (c·x₀)(c·x₁)."""
    initial = {"logits": [[0.3, -0.6, 0.1], [-0.2, 0.5, 1.2]]}
    gains = [0.5, -1.0, 2.0]

    def model() -> None:
        x = ppgrad.policy("x", dist.OneHotCategorical(logits=parameters(initial)["logits"]).to_event(1))
        ppgrad.cost("f", (x @ (torch.tensor(gains) * 1.0)).prod(-1))

    def value(p: Parameters) -> Tensor:
        return -(p["logits"].softmax(-1) @ torch.tensor(gains)).prod()

    return Problem(model, ExpectedReturn, "one-hot values", exact=closed_form(initial, value))


def binomial() -> Problem:
    """n ~ Binomial(3, p); f = (n − 1)², J = −np(1 − p) − (np − 1)²."""
    initial = {"logit": 0.4}

    def model() -> None:
        n = ppgrad.policy("n", dist.Binomial(3, logits=parameters(initial)["logit"]))
        ppgrad.cost("f", (n - 1) ** 2)

    def value(p: Parameters) -> Tensor:
        q = torch.sigmoid(p["logit"])
        return -3 * q * (1 - q) - (3 * q - 1) ** 2

    return Problem(model, ExpectedReturn, "a Binomial site", exact=closed_form(initial, value))


def geometric() -> Problem:
    """n ~ Geometric(p), the number of failures; f = n², J = −(1 − p)(2 − p) / p²."""
    initial = {"p": 0.6}

    def model() -> None:
        ppgrad.cost("f", ppgrad.policy("n", dist.Geometric(parameters(initial)["p"])) ** 2)

    def value(p: Parameters) -> Tensor:
        return -(1 - p["p"]) * (2 - p["p"]) / p["p"] ** 2

    return Problem(model, ExpectedReturn, "a Geometric site", exact=closed_form(initial, value))


def gamma_rate() -> Problem:
    """x ~ Gamma(5/2, b); f = x², J = −a (a + 1) / b²."""
    initial = {"b": 1.4}

    def model() -> None:
        ppgrad.cost("f", ppgrad.policy("x", dist.Gamma(torch.tensor(2.5), parameters(initial)["b"])) ** 2)

    return Problem(
        model, ExpectedReturn, "a Gamma's rate", exact=closed_form(initial, lambda p: -2.5 * 3.5 / p["b"] ** 2)
    )


def normal_vectors() -> Problem:
    """x_n ~ N(m_n, LLᵀ) in a plate; f = (Σ_n x_n₀ x_n₁ − 1)², which couples them."""
    initial = {"m": [[0.5, -0.3], [0.2, 0.4]], "scale_tril": [[0.8, 0.0], [-0.3, 0.6]]}

    def model() -> None:
        p = parameters(initial)
        with pyro.plate("n", 2):
            x = ppgrad.policy("x", dist.MultivariateNormal(p["m"], scale_tril=p["scale_tril"].tril()))
        ppgrad.cost("f", (x.prod(-1).sum(-1) - 1) ** 2)

    def value(p: Parameters) -> Tensor:
        tril = p["scale_tril"].tril()
        cov = tril @ tril.T
        means = p["m"].prod(-1) + cov[0, 1]
        variances = p["m"][:, 0] ** 2 * cov[1, 1] + p["m"][:, 1] ** 2 * cov[0, 0] + cov[0, 0] * cov[1, 1]
        variances = variances + 2 * p["m"].prod(-1) * cov[0, 1] + cov[0, 1] ** 2
        return -variances.sum() - (means.sum() - 1) ** 2

    return Problem(model, ExpectedReturn, "vectors in a plate", exact=closed_form(initial, value))


def renyi_continuous() -> Problem:
    """A Rényi bound of order 0.4 from two samples: z ~ N(0, 1), x | z ~ N(wz, 1), q = N(m, s)."""
    initial, datum = {"m": 0.2, "s": 0.8, "w": 0.6}, 1.3

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(parameters({"w": initial["w"]})["w"] * z, 1.0), obs=torch.tensor(datum) * 1.0)

    def guide() -> None:
        p = parameters({name: start for name, start in initial.items() if name != "w"})
        pyro.sample("z", dist.Normal(p["m"], p["s"]))

    def value(p: Parameters) -> Tensor:
        nodes = torch.linspace(-7, 7, 401, dtype=torch.float64)
        weights = torch.exp(-0.5 * nodes**2)
        z = p["m"] + p["s"] * nodes
        log_weights = -0.5 * z**2 - 0.5 * (datum - p["w"] * z) ** 2 + 0.5 * nodes**2 + p["s"].log()
        return _bound_of_two(weights / weights.sum(), log_weights, sharpness=0.6)

    options = {"num_importance": 2, "alpha": 0.4}
    return Problem(model, RenyiELBO, "a continuous Rényi bound", guide, (), closed_form(initial, value), options)


def importance_hierarchical() -> Problem:
    """A bound of two samples: y ~ N(m, ½), k ~ Bernoulli(σ(a + y)), v ~ N(y + bk, s): layer on layer."""
    initial, datum = {"m": 0.4, "a": -0.3, "b": 0.8, "s": 0.7, "w": 0.5}, 1.1

    def model() -> None:
        w = parameters({"w": initial["w"]})["w"]
        y = pyro.sample("y", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.4)))
        v = pyro.sample("v", dist.Normal(w * y + k, 1.0))
        pyro.sample("x", dist.Normal(v, 1.0), obs=torch.tensor(datum) * 1.0)

    def guide() -> None:
        p = parameters({name: start for name, start in initial.items() if name != "w"})
        y = pyro.sample("y", dist.Normal(p["m"], 0.5))
        k = pyro.sample("k", dist.Bernoulli(logits=p["a"] + y))
        pyro.sample("v", dist.Normal(y + p["b"] * k, p["s"]))

    def value(p: Parameters) -> Tensor:
        nodes = torch.linspace(-6, 6, 49, dtype=torch.float64)
        normal = torch.exp(-0.5 * nodes**2)
        normal = normal / normal.sum()
        y, eps = (p["m"] + 0.5 * nodes).unsqueeze(-1), nodes
        weights, log_weights = [], []
        for k, prior in ((0.0, 0.6), (1.0, 0.4)):
            v = y + p["b"] * k + p["s"] * eps
            q_k = torch.sigmoid((p["a"] + y) * (2 * k - 1))
            log_joint = -0.5 * y**2 + math.log(prior) - 0.5 * (v - p["w"] * y - k) ** 2 - 0.5 * (datum - v) ** 2
            log_q = -0.5 * nodes.unsqueeze(-1) ** 2 + q_k.log() - 0.5 * eps**2 - p["s"].log()
            weights.append((normal.unsqueeze(-1) * normal * q_k).reshape(-1))
            log_weights.append((log_joint - log_q).reshape(-1))
        return _bound_of_two(torch.cat(weights), torch.cat(log_weights))

    options = {"num_importance": 2}
    return Problem(model, IWELBO, "a bound of three layers", guide, (), closed_form(initial, value), options)


def _two_steps(
    initial: Mapping[str, object],
) -> tuple[Callable[[], None], Callable[[Parameters], tuple[Tensor, Tensor]]]:
    """Two Bernoulli steps of which the first acts on the second, and their joint probabilities and returns."""

    def model() -> None:
        p = parameters(initial)
        a = ppgrad.policy("a", dist.Bernoulli(logits=p["first"]))
        ppgrad.reward("r_a", 2 * a)
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["second"] + a))
        ppgrad.reward("r_b", b - 3.5 * a * b)

    def table(p: Parameters) -> tuple[Tensor, Tensor]:
        steps = list(itertools.product((0, 1), repeat=2))
        chances = [
            torch.sigmoid(p["first"] * (2 * a - 1)) * torch.sigmoid((p["second"] + a) * (2 * b - 1)) for a, b in steps
        ]
        return torch.stack(chances), torch.tensor([2.0 * a + b - 3.5 * a * b for a, b in steps]) * 1.0

    return model, table


def tail_risk() -> Problem:
    """The worst half of three runs of two Bernoulli steps: the worst, and half of the next."""
    initial = {"first": 0.4, "second": -0.3}
    model, table = _two_steps(initial)

    def value(p: Parameters) -> Tensor:
        chances, returns = table(p)
        return _over_tuples(
            chances, returns, 3, lambda r: (r.sort().values * torch.tensor([1.0, 0.5, 0.0])).sum() / 1.5
        )

    options = {"num_importance": 3, "level": 0.5}
    return Problem(model, CVaR, "the worst returns", exact=closed_form(initial, value), options=options)


def best_of() -> Problem:
    """The best of two runs of two Bernoulli steps, from three runs."""
    initial = {"first": 0.4, "second": -0.3}
    model, table = _two_steps(initial)

    def value(p: Parameters) -> Tensor:
        chances, returns = table(p)
        return _over_tuples(chances, returns, 2, lambda r: r.max())

    options = {"num_importance": 3, "k": 2}
    return Problem(model, BestOf, "the best of two", exact=closed_form(initial, value), options=options)


def group_relative() -> Problem:
    """Two Bernoulli steps under the advantages of a group."""
    initial = {"first": 0.4, "second": -0.3}
    model, table = _two_steps(initial)

    def value(p: Parameters) -> Tensor:
        chances, returns = table(p)
        return (chances * returns).sum()

    return Problem(model, GroupRelative, "advantages of a group", exact=closed_form(initial, value))


def kl_regularized() -> Problem:
    """x ~ N(μ, σ), b ~ Bernoulli(σ(a + x)); a divergence from N(0, 1) and a fair coin, as a reward."""
    initial = {"mu": 0.5, "sigma": 1.4, "a": 0.3}

    def model() -> None:
        p = parameters(initial)
        x = ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"]))
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["a"] + x))
        ppgrad.cost("f", x**2 - b)

    def value(p: Parameters) -> Tensor:
        nodes = torch.linspace(-8, 8, 2001, dtype=torch.float64)
        weights = torch.exp(-0.5 * nodes**2)
        q = torch.sigmoid(p["a"] + p["mu"] + p["sigma"] * nodes)
        coin = q * (2 * q).log() + (1 - q) * (2 * (1 - q)).log()
        divergence = (p["sigma"] ** 2 + p["mu"] ** 2 - 1) / 2 - p["sigma"].log()
        expected = ((weights / weights.sum()) * (q - 0.6 * coin)).sum()
        return expected - p["mu"] ** 2 - p["sigma"] ** 2 - 0.6 * divergence

    reference = {"x": dist.Normal(0.0, 1.0), "b": dist.Bernoulli(0.5)}
    options = {"reference": reference, "coefficient": 0.6}
    return Problem(model, KLRegularized, "a divergence", exact=closed_form(initial, value), options=options)


def kl_as_loss() -> Problem:
    """A Normal and a Bernoulli action that do not meet, ½ℓ² as a loss: each action's own divergence."""
    initial = {"mu": 0.5, "sigma": 0.8, "a": 0.3}

    def model() -> None:
        p = parameters(initial)
        x = ppgrad.policy("x", dist.Normal(p["mu"], p["sigma"]))
        b = ppgrad.policy("b", dist.Bernoulli(logits=p["a"]))
        ppgrad.cost("f", x**2 * (1 - b))

    def value(p: Parameters) -> Tensor:
        q = torch.sigmoid(p["a"])
        coin = q * (2 * q).log() + (1 - q) * (2 * (1 - q)).log()
        divergence = (p["sigma"] ** 2 + p["mu"] ** 2 - 1) / 2 - p["sigma"].log()
        return -(1 - q) * (p["mu"] ** 2 + p["sigma"] ** 2) - 0.6 * (divergence + coin)

    def reference(message: Mapping[str, Any]) -> Any:
        return dist.Normal(0.0, 1.0) if message["name"] == "x" else dist.Bernoulli(0.5)

    options = {"reference": reference, "coefficient": 0.6, "kind": "k2", "as_": "loss"}
    return Problem(model, KLRegularized, "a divergence as a loss", exact=closed_form(initial, value), options=options)


def var_grad() -> Problem:
    """The discrete bound of `discrete_elbo`, by the gradient of a variance."""
    problem = discrete_elbo()
    return replace(problem, objective=VarGrad, about="a bound, by a variance")


def _over_tuples(probabilities: Tensor, returns: Tensor, size: int, value: Callable[[Tensor], Tensor]) -> Tensor:
    """E of a function of the returns of independent runs."""
    tuples = itertools.product(range(len(returns)), repeat=size)
    return torch.stack([probabilities[list(i)].prod() * value(returns[list(i)]) for i in tuples]).sum()


def _bound_of_two(probabilities: Tensor, gains: Tensor, sharpness: float = 1.0) -> Tensor:
    """E (1/s) log ½ (exp s g₁ + exp s g₂) over independent pairs."""
    scaled = sharpness * gains
    pairs = torch.logaddexp(scaled[:, None], scaled[None, :]) - math.log(2)
    return probabilities @ pairs @ probabilities / sharpness
