"""Small programs whose exact gradients are known in closed form, apart from the engine.

Each function returns a `Problem`. Its exact gradient is the derivative of an expectation that is
written out by hand as a function of the parameters.
"""

from __future__ import annotations

from ppgrad.core import Problem
from ppgrad.testing.problems.bounds import conjugate_elbo, discrete_elbo, sequential_elbo, subsampled_elbo, var_grad
from ppgrad.testing.problems.common import Parameters, closed_form, parameters
from ppgrad.testing.problems.continuous import (
    gamma,
    gamma_rate,
    independent_normal,
    log_normal,
    mixture,
    multivariate_normal,
    normal_chain,
    normal_plate,
    normal_vectors,
)
from ppgrad.testing.problems.discrete import (
    bernoulli_chain,
    binomial,
    categoricals,
    coupled_plate,
    geometric,
    masked_out,
    nested_events,
    one_hot,
    poisson,
    vectors_in_masks,
)
from ppgrad.testing.problems.importance import (
    importance_discrete,
    importance_hierarchical,
    importance_mixed,
    renyi,
    renyi_continuous,
)
from ppgrad.testing.problems.regularized import kl_as_loss, kl_regularized, max_ent_return
from ppgrad.testing.problems.several_runs import best_of, entropic_risk, group_relative, tail_risk
from ppgrad.testing.problems.structured import (
    discounted,
    episodes,
    local_global_local,
    masked,
    mixed,
    nested_loops,
    random_transition,
    scaled,
    sequential_plate,
)

__all__ = ["Parameters", "all_problems", "closed_form", "parameters"]


def all_problems() -> dict[str, Problem]:
    """Every problem of this package, by name."""
    builders = (
        normal_plate, gamma, multivariate_normal, log_normal, independent_normal, masked, mixture, bernoulli_chain,
        coupled_plate, mixed, normal_chain, scaled, sequential_plate, episodes, local_global_local,
        conjugate_elbo, discrete_elbo, subsampled_elbo, random_transition, discounted, poisson,
        importance_discrete, importance_mixed, renyi, entropic_risk, max_ent_return,
        sequential_elbo, nested_loops, categoricals, one_hot, binomial, geometric, gamma_rate, normal_vectors,
        renyi_continuous, importance_hierarchical, tail_risk, best_of, group_relative,
        kl_regularized, kl_as_loss, var_grad, vectors_in_masks, nested_events, masked_out,
    )  # fmt: skip
    return {builder.__name__: builder() for builder in builders}
