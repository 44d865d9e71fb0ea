"""The expected return, less the divergence from a reference policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import MaskedDistribution
from torch import Tensor

from ppgrad.core import Estimator, Facts, InvalidAssignment, InvalidInput, Unsupported
from ppgrad.core.arguments import not_negative
from ppgrad.core.distributions import detached, without_mask
from ppgrad.core.generators import other_draws
from ppgrad.engine.assignment.assignment import Choice
from ppgrad.engine.checking.first_run import RUNS_FOR_A_GLOB, Prepared
from ppgrad.engine.checking.ordinary_run import ordinary_run
from ppgrad.engine.running.fixed_parameters import StoppedParameters
from ppgrad.engine.running.site import Site
from ppgrad.estimators.discrete.relaxation import relaxed_log_prob
from ppgrad.objectives.expected_return import ExpectedReturn
from ppgrad.objectives.objective import Objective

Kind = Literal["k1", "k2", "k3"]
As = Literal["reward", "loss"]
Reference = Mapping[str, TorchDistribution] | Callable[[Mapping[str, Any]], TorchDistribution]

_SOURCE = "Schulman (2020), Approximating KL divergence; Tang & Munos (2025), On a few pitfalls in KL"
_FACTS = {
    ("k1", "reward"): Facts(_SOURCE),
    ("k2", "reward"): Facts(_SOURCE, biased=True, order="the gradient of E[½ℓ²], ℓ held fixed"),
    ("k3", "reward"): Facts(_SOURCE, biased=True, order="that of KL(π‖ref) − KL(ref‖π)"),
    ("k1", "loss"): Facts(_SOURCE, biased=True, order="0: the KL term has no effect"),
    ("k2", "loss"): Facts(_SOURCE, biased=True, order="none for one action; of several, each alone"),
    ("k3", "loss"): Facts(_SOURCE, biased=True, order="that of KL(ref‖π)"),
}


class KLRegularized(ExpectedReturn):
    """J = E[Σ_t γ^t r_t − c Σ_i KL(π(·|s_i) ‖ ref(·|s_i))], i over the policy sites, from one draw each.

    With ℓ = log π(a) − log ref(a): k1 = ℓ, k2 = ½ ℓ², k3 = exp(−ℓ) − 1 + ℓ. k1 and k3 have the mean
    KL(π‖ref). What their gradients have as a mean is another matter:

    | | as a reward: a draw is charged with k | as a loss: k is differentiated, the action held fixed |
    | --- | --- | --- |
    | k1 | ∇KL(π‖ref) | 0 |
    | k2 | E[½ℓ² ∇log π] | ∇KL(π‖ref) of each action alone |
    | k3 | ∇(KL(π‖ref) − KL(ref‖π)) | ∇KL(ref‖π) |

    Here ∇(KL(π‖ref) − KL(ref‖π)) is meant at the last action. As a reward a term is charged to the
    actions before it, too; as a loss it is not, which leaves out what they do to it. Neither depends on
    the estimator: a reward holds log π's parameters fixed, a loss holds the action fixed. A loss
    moves the gradient and is no part of the loss that is reported.

    Args:
        estimator: serves every site that nothing else chooses for.
        reference: ``{glob: distribution}``, or a function from a policy site's message (``name``, ``fn``,
            ``value``, ``infer`` with its ``context``) to the reference's distribution there. Its
            parameters are held fixed.
        coefficient: c ≥ 0, in units of the reward.
        kind: "k1", "k2" or "k3".
        as_: "reward" or "loss".
        discount: γ, as in `ExpectedReturn`; the KL terms are not discounted.
        options: see `Objective`.

    Raises:
        InvalidInput: an argument is out of range, or a reference's event shape is not the site's.
        InvalidAssignment: a policy site without a reference, or a glob that matches none.

    Source: Schulman (2020), Approximating KL divergence; Tang & Munos (2025), On a few pitfalls in KL
    divergence gradient estimation for RL, section 3.
    """

    def __init__(
        self,
        estimator: Estimator | None = None,
        *,
        reference: Reference,
        coefficient: float = 1.0,
        kind: Kind = "k1",
        as_: As = "reward",
        **options: Any,
    ):
        if kind not in get_args(Kind):
            raise InvalidInput(f"KLRegularized(kind={kind!r}): write 'k1', 'k2' or 'k3'.")
        if as_ not in get_args(As):
            raise InvalidInput(f"KLRegularized(as_={as_!r}): write 'reward' or 'loss'.")
        not_negative("KLRegularized", "coefficient", coefficient, 1.0)
        if not callable(reference) and not isinstance(reference, Mapping):
            raise InvalidInput(
                f"KLRegularized(reference={reference!r}): write {{glob: distribution}}, or a function from a policy "
                "site's message to a distribution."
            )
        super().__init__(estimator, **options)
        self.reference = reference
        self.coefficient = coefficient
        self.kind: Kind = kind
        self.as_: As = as_
        self._matched: set[str] = set()

    @property
    def facts(self) -> Facts:
        return _FACTS[self.kind, self.as_]

    def with_choice(self, sites: Choice, num_particles: int = 1) -> Objective:
        other = super().with_choice(sites, num_particles)
        other.__dict__.update(kind="k1", as_="reward")
        return other

    def prepare(self, model: Any, guide: Any = None, args: Any = (), kwargs: Any = None) -> Prepared:
        prepared = super().prepare(model, guide, args, kwargs)
        if not callable(self.reference):
            with other_draws():
                for _ in range(RUNS_FOR_A_GLOB):  # a site that the first run lacks may be in another
                    if not self.reference.keys() <= self._matched:
                        self.costs(ordinary_run(prepared.executor))
            for glob in self.reference.keys() - self._matched:
                raise InvalidAssignment(
                    f"The glob {glob!r} of reference= matches no policy site. Write one that does, or leave it out."
                )
        return prepared

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        if self.all_orders and (self.kind, self.as_) != ("k1", "reward"):
            raise Unsupported(
                f"KLRegularized(kind={self.kind!r}, as_={self.as_!r}) has no second derivative. "
                "Write kind='k1', as_='reward'."
            )
        costs = super().costs(sites)
        for i, site in enumerate(sites):
            if site.infer.get("policy") and site.kind in ("draw", "noise"):
                costs[i] = self.coefficient * site.weighted(self._divergence(site))
        return costs

    def _divergence(self, site: Site) -> Tensor:
        """k of one site, batch shape."""
        fn, value = without_mask(site.fn), site.value
        keeps_parameters = self.as_ == "loss" or self.all_orders
        if self.as_ == "loss":
            value = value.detach()
        policy = fn if keeps_parameters else detached(fn)
        log_prob = relaxed_log_prob if site.is_relaxed else _log_prob
        ratio = log_prob(policy, value) - self._reference_log_prob(site, value)
        if self.kind == "k2":
            ratio = ratio**2 / 2
        elif self.kind == "k3":
            ratio = torch.expm1(-ratio) + ratio
        if self.as_ == "loss":
            ratio = ratio - ratio.detach()
        return ratio if fn is site.fn else torch.where(_mask(site), ratio, torch.zeros_like(ratio))

    def _reference_log_prob(self, site: Site, value: Tensor) -> Tensor:
        log_prob = relaxed_log_prob if site.is_relaxed else _log_prob
        if callable(self.reference):
            with StoppedParameters():
                message = {"name": site.name, "fn": site.fn, "value": value, "infer": site.infer}
                fn = _checked(self.reference(message), site)
                return log_prob(fn, value)
        matching = [glob for glob in self.reference if fnmatchcase(site.name, glob)]
        if len(matching) != 1:
            what = f"{len(matching)} globs" if matching else "no glob"
            raise InvalidAssignment(
                f"Policy site '{site.name}' matches {what} of reference=. Write one: "
                f"reference={{'{site.name}': distribution}}."
            )
        self._matched.update(matching)
        return log_prob(detached(_checked(self.reference[matching[0]], site)), value)


def _log_prob(fn: TorchDistribution, value: Tensor) -> Tensor:
    log_prob: Tensor = fn.log_prob(value)
    return log_prob


def _mask(site: Site) -> Tensor:
    if not isinstance(site.fn, MaskedDistribution):
        raise Unsupported(
            f"KLRegularized cannot tell which parts of an event of site '{site.name}' are masked. "
            "Write .to_event(…).mask(…), or poutine.mask."
        )
    return torch.as_tensor(site.fn._mask)


def _checked(fn: Any, site: Site) -> TorchDistribution:
    if not hasattr(fn, "log_prob"):
        raise InvalidInput(f"The reference at policy site '{site.name}' is {fn!r}. Write a Pyro distribution.")
    if fn.event_shape != site.fn.event_shape:
        raise InvalidInput(
            f"The reference at policy site '{site.name}' has event shape {tuple(fn.event_shape)}, the policy "
            f"{tuple(site.fn.event_shape)}. Give both the same, as with to_event."
        )
    return fn
