"""Objectives as expectations over the outcomes of a program: a scalar whose gradient is the one that is estimated.

Objectives of several runs are expectations over pairs of independent ones: K = 2 wherever there is a K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ppgrad.testing.programs.data import Draw, Program, walk
from ppgrad.testing.programs.families import FAMILIES, Rough
from ppgrad.testing.programs.interpreter import Interpreter, Outcomes, TooLarge

MOST_PAIRS = 4_000_000
_NODES = (5, 6, 8, 12, 17, 24, 40, 80)


@dataclass(frozen=True, eq=False)
class Goal:
    """An objective with its options, and what it is an expectation of.

    Args:
        name: of the objective's class.
        value: of the outcomes, and of all options; a scalar to differentiate.
        guided: whether it is of a model and a guide.
        options: of the objective.
        kinked: it is no smooth function of what the runs earn.
        by_slice: whether slices that share nothing have a number of their own.
    """

    name: str
    value: Callable[[Outcomes, Mapping[str, Any]], Tensor]
    guided: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    kinked: bool = False
    by_slice: bool = False

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"


@dataclass(frozen=True)
class Exact:
    """A gradient in the direction of ascent, double precision, and how far quadrature may be off it; by parameter."""

    gradient: dict[str, Tensor]
    error: dict[str, Tensor]


def exact_gradient(program: Program, goal: Goal) -> Exact:
    """The gradient of an objective at a program's parameters.

    Rules of quadrature get finer until two of them agree to 1e-5 of the largest component, or there are too many nodes;
    the difference of the last two is the error.

    Raises:
        TooLarge: there is too much to sum over.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        if all(_is_finite(step) for step in walk(program.steps)):
            found = _gradient(program, goal, 0)
            return Exact(found, {name: torch.zeros_like(each) for name, each in found.items()})
        return _converged(program, goal)
    finally:
        torch.set_default_dtype(default)


def _converged(program: Program, goal: Goal) -> Exact:
    first, best = _gradient(program, goal, _NODES[0]), None
    for nodes in _NODES[1:]:
        try:
            second = _gradient(program, goal, nodes)
        except TooLarge:
            if best is None:
                raise
            break
        best = Exact(second, {name: (first[name] - second[name]).abs() for name in second})
        largest = max(float(each.abs().max()) for each in second.values())
        if all(float(error.max()) <= 1e-5 * max(largest, 0.01) for error in best.error.values()):
            break
        first = second
    assert best is not None
    return best


def _is_finite(step: Any) -> bool:
    return not isinstance(step, Draw) or FAMILIES[step.fn.family].finite


def _gradient(program: Program, goal: Goal, nodes: int) -> dict[str, Tensor]:
    leaves = {
        name: torch.tensor(value, dtype=torch.float64).requires_grad_() for name, value in program.parameters.items()
    }
    by_slice = goal.by_slice and program.by_slice
    rough: Rough = "jumps" if program.jumps else "kinks" if goal.kinked else ""
    groups = Interpreter(program, leaves, nodes, goal.options.get("discount", 1.0), by_slice, rough).outcomes()
    value = goal.value(_joined(groups), goal.options)
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def _joined(groups: Sequence[Outcomes]) -> Outcomes:
    """The outcomes of all structures as one."""
    if len(groups) == 1:
        return groups[0]
    columns: dict[str, Any] = {name: torch.cat([getattr(each, name) for each in groups]) for name in _COLUMNS}
    ratios = tuple((ratio, weight, where) for where, each in enumerate(groups) for ratio, weight in each.ratios)
    return replace(groups[0], **columns, ratios=tuple(_placed(ratios, groups)))


_COLUMNS = ("log_prob", "log_shared", "group", "reward", "log_p", "log_q")


def _placed(ratios: Sequence[tuple[Tensor, Tensor, int]], groups: Sequence[Outcomes]) -> list[tuple[Tensor, Tensor]]:
    """Ratios of one structure in the worlds of all: nothing elsewhere."""
    sizes = [len(each.log_prob) for each in groups]
    found = []
    for ratio, weight, where in ratios:
        before, after = sum(sizes[:where]), sum(sizes[where + 1 :])
        pad = (0, 0) * (ratio.dim() - 1) + (before, after)
        found.append((torch.nn.functional.pad(ratio, pad), torch.nn.functional.pad(weight, pad)))
    return found


def _mean(outcomes: Outcomes, value: Tensor) -> Tensor:
    return ((outcomes.log_prob + outcomes.log_shared).exp() * value).sum()


def _pairs(outcomes: Outcomes, gains: Tensor, value: Callable[[Tensor], Tensor], shares_data: bool = False) -> Tensor:
    """E v(g_1, g_2) of two independent runs, added up over parts.

    Args:
        outcomes: with the probabilities.
        gains: g of each world, ``(worlds, parts)``.
        value: v of ``(…, 2)``.
        shares_data: the two have the same elements of subsampled plates.
    """
    found = outcomes.log_prob.new_zeros(())
    for here, log_shared in _groups(outcomes, gains.shape[1], shares_data):
        own = outcomes.log_prob if shares_data else outcomes.log_prob + outcomes.log_shared
        both = torch.stack([gains[here][:, None].expand(-1, len(here), -1), gains[here].expand(len(here), -1, -1)], -1)
        chances = own[here].exp()
        found = found + (log_shared.exp() if shares_data else 1.0) * (chances @ value(both).sum(-1) @ chances)
    return outcomes.scale * found


def _groups(outcomes: Outcomes, parts: int, shares_data: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Which worlds make pairs, and the logarithm of the probability of the elements that they share."""
    alike = outcomes.group if shares_data else torch.zeros_like(outcomes.group)
    for group in sorted(set(alike.tolist())):
        here = (alike == group).nonzero()[:, 0]
        if len(here) ** 2 * parts > MOST_PAIRS:
            raise TooLarge(f"{len(here)} outcomes are too many for pairs")
        yield here, outcomes.log_shared[here[0]]


def _gain(outcomes: Outcomes) -> Tensor:
    return outcomes.log_p - outcomes.log_q


def _expected_return(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    return _mean(outcomes, outcomes.reward[:, 0])


def _elbo(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    return _mean(outcomes, _gain(outcomes)[:, 0])


def _max_ent(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    return _mean(outcomes, outcomes.reward[:, 0] - options["temperature"] * outcomes.log_q[:, 0])


def _kl_regularized(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    """As a reward a divergence is one with the parameters held fixed, as a loss one with the draws held fixed."""
    found, chances = outcomes.reward[:, 0], (outcomes.log_prob + outcomes.log_shared).exp()
    value = (chances * found).sum()
    for ratio, weight in outcomes.ratios:
        k = {"k1": ratio, "k2": ratio**2 / 2, "k3": torch.expm1(-ratio) + ratio}[options["kind"]]
        term = (k.detach() if options["as_"] == "reward" else k) * weight.detach()
        expected = (chances if options["as_"] == "reward" else chances.detach()) * term.flatten(1).sum(1)
        value = value - options["coefficient"] * expected.sum()
    return value


def _log_mean_exp(outcomes: Outcomes, gains: Tensor, s: float, shares_data: bool) -> Tensor:
    return _pairs(outcomes, gains, lambda g: ((s * g).logsumexp(-1) - math.log(2)) / s, shares_data)


def _bound(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    return _log_mean_exp(outcomes, _gain(outcomes), 1.0 - options.get("alpha", 0.0), True)


def _risk(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    return _log_mean_exp(outcomes, outcomes.reward, options["beta"], False)


def _best_of(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    return _pairs(outcomes, outcomes.reward, lambda g: g.max(-1).values)


def _worst(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    second = 2 * options["level"] - 1  # of the better of two runs
    return _pairs(outcomes, outcomes.reward, lambda g: (g.min(-1).values + second * g.max(-1).values) / (1 + second))


def _divergence(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    def value(gains: Tensor) -> Tensor:
        log_ratio = gains.log_softmax(-1) + math.log(2)
        ratio = log_ratio.exp()
        if options["f"] == "renyi":
            moment = (options["alpha"] * log_ratio).logsumexp(-1) - math.log(2)
            return -moment / (options["alpha"] - 1)
        f = {
            "forward_kl": lambda: ratio * log_ratio,
            "reverse_kl": lambda: -log_ratio,
            "chi_square": lambda: (ratio - 1) ** 2,
            "hellinger": lambda: (ratio.sqrt() - 1) ** 2,
            "jensen_shannon": lambda: (ratio * log_ratio - (ratio + 1) * ((ratio + 1) / 2).log()) / 2,
        }[options["f"]]()
        return -f.mean(-1)

    return _pairs(outcomes, _gain(outcomes), value, shares_data=True)


def _wake(outcomes: Outcomes, options: Mapping[str, Any]) -> Tensor:
    """Σ_k w̃_k (∇ log p + ι ∇ log q), draws held fixed."""
    moved = outcomes.log_p + options["insomnia"] * outcomes.log_q
    gain = _gain(outcomes).detach()
    log_prob = outcomes.log_prob.detach()
    total = log_prob.new_zeros(())
    for here, log_shared in _groups(outcomes, gain.shape[1], True):
        chances = log_prob[here].exp()
        share = torch.sigmoid(gain[here][:, None] - gain[here][None, :])  # of the first of two
        expected = torch.einsum("i,ijp,j->ip", chances, share, chances)
        total = total + log_shared.exp() * 2 * (expected * moved[here]).sum()
    return outcomes.scale * total


@cache
def goals() -> tuple[Goal, ...]:
    """Every objective of the package, with options that matter."""
    pair = {"num_importance": 2}
    forms = ("forward_kl", "reverse_kl", "chi_square", "hellinger", "jensen_shannon")
    return (
        Goal("ExpectedReturn", _expected_return, False),
        Goal("ExpectedReturn", _expected_return, False, {"discount": 0.7}),
        Goal("GroupRelative", _expected_return, False, {"num_particles": 2}),
        Goal("MaxEntReturn", _max_ent, False, {"temperature": 0.4}),
        *[
            Goal("KLRegularized", _kl_regularized, False, {"coefficient": 0.5, "kind": kind, "as_": as_})
            for kind in ("k1", "k2", "k3")
            for as_ in ("reward", "loss")
        ],
        Goal("EntropicRisk", _risk, False, {"beta": -0.6, **pair}),
        Goal("BestOf", _best_of, False, {"k": 2, "num_importance": 3}, kinked=True),
        Goal("CVaR", _worst, False, {"level": 0.75, **pair}, kinked=True),
        Goal("ELBO", _elbo, True),
        Goal("ELBO", _elbo, True, {"analytic_kl": True}),
        Goal("VarGrad", _elbo, True, {"num_particles": 2}),
        Goal("IWELBO", _bound, True, {"per": "joint", **pair}),
        Goal("IWELBO", _bound, True, pair, by_slice=True),
        Goal("RenyiELBO", _bound, True, {"alpha": 0.4, "per": "joint", **pair}),
        *[Goal("Divergence", _divergence, True, {"f": f, **pair}) for f in forms],
        Goal("Divergence", _divergence, True, {"f": "renyi", "alpha": 2.0, **pair}),
        Goal("ReweightedWakeSleep", _wake, True, {"insomnia": 1.0, "per": "joint", **pair}),
    )
