"""A divergence between the guide and the model's posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ppgrad.core import Estimator, Facts, InvalidInput
from ppgrad.core.arguments import finite
from ppgrad.engine.program.program import Program
from ppgrad.engine.running.site import Site
from ppgrad.objectives._shared.lanes import others_of_each
from ppgrad.objectives._shared.requirements import needs_guide
from ppgrad.objectives.importance_bound import importance_costs
from ppgrad.objectives.joint import JointObjective

Name = Literal["forward_kl", "reverse_kl", "chi_square", "hellinger", "jensen_shannon", "renyi"]


class Divergence(JointObjective):
    """J = −D_f, D_f = E_q[f(p(z | x) / q(z))], f convex with f(1) = 0.

    | f by name | f(r) | D_f |
    | --- | --- | --- |
    | "forward_kl" | r log r | KL(p ‖ q) |
    | "reverse_kl" | −log r | KL(q ‖ p) |
    | "chi_square" | (r − 1)² | χ²(p ‖ q) |
    | "hellinger" | (√r − 1)² | twice the squared Hellinger distance |
    | "jensen_shannon" | ½ (r log r − (r + 1) log ½(r + 1)) | Jensen–Shannon |
    | "renyi" | no such mean: log E_q[r^α] / (α − 1) | Rényi's, of p from q and of order α |

    The posterior is known but for the evidence, so the ratio of sample k of K is estimated by
    r_k = w_k / mean(w), w_k = p(x, z_k) / q(z_k), and D_f by the mean of f(r_k), which differs from it by O(1/K).
    Whatever the estimator, the gradient is unbiased for the expectation of that mean. It moves the model's
    parameters as well as the guide's, towards a posterior that is like the guide: to fit a model to data take a bound.

    Args:
        estimator: serves every site that nothing else chooses for.
        f: a name, or a function of a tensor of ratios of any shape to one of the same shape, elementwise.
        alpha: the order, for "renyi" alone: above 0 and not 1.
        num_importance: K ≥ 2.
        options: see `Objective`; ``num_particles`` such estimates are averaged, K samples each.

    Raises:
        InvalidInput: there is no such name, f(1) is not 0, f is not convex at some ratios between 1e-3 and 1e3,
            ``alpha`` is out of range or given to another f, or ``num_importance`` is 1.

    Source: Ali & Silvey (1966), A general class of coefficients of divergence; Wan, Li & Hovakimyan (2020),
    f-Divergence variational inference; Bamler et al. (2017), Perturbative black box variational inference.
    """

    shares_data = True
    sums_out = True

    def __init__(
        self,
        estimator: Estimator | None = None,
        *,
        f: Name | Callable[[Tensor], Tensor] = "forward_kl",
        alpha: float | None = None,
        num_importance: int = 8,
        **options: Any,
    ):
        if not callable(f) and f not in get_args(Name):
            known = ", ".join(f"'{name}'" for name in get_args(Name))
            raise InvalidInput(f"Divergence(f={f!r}): write {known}, or a function of the ratio p / q.")
        if callable(f):
            _check_convex(f)
        if (alpha is None) == (f == "renyi"):
            raise InvalidInput("Divergence: alpha is the order of Rényi's divergence. Write f='renyi', alpha=2.0.")
        if alpha is not None:
            finite("Divergence", "alpha", alpha, 2.0)
            if alpha <= 0 or alpha == 1.0:
                raise InvalidInput(f"Divergence(alpha={alpha!r}): alpha is above 0 and not 1; 1 is f='forward_kl'.")
        if not isinstance(num_importance, bool) and num_importance == 1:
            raise InvalidInput("Divergence(num_importance=1): a ratio needs another to compare with. Write 2 or more.")
        self.f = f
        self.alpha = alpha
        super().__init__(estimator, num_importance=num_importance, **options)

    @property
    def facts(self) -> Facts:
        return Facts(source="Wan, Li & Hovakimyan (2020)", biased=True, order="O(1/K)")

    def check(self, program: Program) -> None:
        needs_guide(self, program)

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        return importance_costs(sites)

    def value(self, costs: Tensor) -> Tensor:
        size = costs.shape[-1]
        log_ratios = (-costs).log_softmax(-1) + math.log(size)
        if self.alpha is not None:
            moment = (self.alpha * log_ratios).logsumexp(-1) - math.log(size)
            return -moment / (self.alpha - 1)
        values = self.f(log_ratios.exp()) if callable(self.f) else _of_log(self.f, log_ratios)
        return -values.mean(-1)

    def without(self, costs: Tensor) -> Tensor | None:
        return -self.value(others_of_each(costs)) if costs.shape[-1] > 2 else super().without(costs)


def _of_log(name: Name, log_ratio: Tensor) -> Tensor:
    """f by name, of the logarithm of the ratio."""
    ratio = log_ratio.exp()
    finite_log = log_ratio.clamp(min=torch.finfo(log_ratio.dtype).min)  # 0 log 0 is 0
    if name == "reverse_kl":
        return -log_ratio
    if name == "chi_square":
        return (ratio - 1) ** 2
    if name == "hellinger":
        return ((log_ratio / 2).exp() - 1) ** 2
    if name == "forward_kl":
        return ratio * finite_log
    return (ratio * finite_log - (ratio + 1) * (ratio.log1p() - math.log(2))) / 2


def _check_convex(f: Callable[[Tensor], Tensor]) -> None:
    ratios = torch.logspace(-3, 3, 61, dtype=torch.float64)
    with torch.no_grad():
        values, at_one = f(ratios), f(torch.ones(1, dtype=torch.float64))
    if not isinstance(values, Tensor) or values.shape != ratios.shape:
        raise InvalidInput("Divergence(f=…): f turns a tensor of ratios into one of the same shape.")
    if float(at_one.abs()) > 1e-9:
        raise InvalidInput(f"Divergence(f=…): f(1) is {float(at_one):g}. Subtract it: equal densities do not diverge.")
    slopes = values.diff() / ratios.diff()
    if bool((slopes.diff() < -1e-9 * (1 + slopes[1:].abs())).any()):
        raise InvalidInput("Divergence(f=…): f is not convex in the ratio p / q. Write one of the names, or mend f.")
