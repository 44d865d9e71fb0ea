"""The Fisher information matrix of a policy or a Pyro program, and its product with a vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ppgrad.core import InvalidInput
from ppgrad.engine.program.parameters import param_store_unchanged
from ppgrad.engine.program.program import Program, program_of
from ppgrad.measurement.divergence import Divergence, FisherProduct, flat, like
from ppgrad.measurement.gradient import pure
from ppgrad.measurement.score import as_arguments, check_call, random_sites, returned, score, traced

FisherKind = Literal["exact", "empirical"]


def fisher(
    program: Callable[..., Any],
    args: Any = (),
    *,
    kind: FisherKind = "exact",
    actions: Tensor | None = None,
    num_particles: int = 1,
    seed: int = 0,
) -> Tensor:
    """F = E[s sᵀ] with s = ∇_θ log π_θ(a|φ), averaged over the batch of a policy.

    ``"exact"`` takes the expectation over actions in closed form, as the Hessian of torch's
    ``kl_divergence``. ``"empirical"`` averages s sᵀ over the ``actions`` given, or over draws.

    For a Pyro program F is that of the joint distribution of its random sites, the sum over sites
    of E[F_site], each in closed form or from draws; what a site's distribution depends on is drawn,
    ``num_particles`` times. It is exact where no site depends on another, as in a mean-field guide.

    Args:
        program: a policy (a module or function that returns a distribution), or a Pyro program.
        args: what it is called with: one tensor, such as the observations, or a tuple.
        kind: see above.
        actions: the actions of a policy for ``"empirical"``; None to draw them.
        num_particles: how many runs of a Pyro program, or draws of each action, to average over.
        seed: the draws are a function of it; global state is left alone.

    Returns:
        Shape ``(n, n)`` for n numbers in all parameters: these one after the other, in the order of
        `score`, each flattened; with respect to unconstrained values.

    Raises:
        CannotBeExact: torch has no divergence of a distribution, such as a mixture.
        Unsupported: the support of a distribution moves with a parameter.
        InvalidInput: an argument is out of its range, or has a shape that does not fit.

    Source: Amari (1998), Natural gradient works efficiently in learning, section 2; Kakade (2001),
    A natural policy gradient, eq. 3.

    >>> import torch, ppgrad
    >>> policy = ppgrad.GaussianPolicy(1, 1, covariance="constant", scale=0.5, hidden=())
    >>> ppgrad.fisher(policy, torch.tensor([[1.0], [3.0]]))
    tensor([[20.,  8.],
            [ 8.,  4.]])
    """
    ready = _checked(program, args, kind, actions, num_particles)
    with pure(seed, ready), param_store_unchanged():
        if kind == "empirical" and _is_policy(ready):
            return _from_scores(ready, actions, num_particles)
        return FisherProduct(Divergence(ready, kind, num_particles, actions)).matrix().detach()


def fisher_vector_product(
    program: Callable[..., Any],
    args: Any = (),
    vector: Mapping[str, Tensor] | Tensor | None = None,
    *,
    kind: FisherKind = "exact",
    actions: Tensor | None = None,
    num_particles: int = 1,
    seed: int = 0,
) -> dict[str, Tensor]:
    """F v, without forming F: two derivatives of a divergence.

    Args:
        program: as in `fisher`.
        args: as in `fisher`.
        vector: ``{parameter: tensor}`` for every parameter, as `gradient` and `score` name them; or
            flat, shape ``(n,)``.
        kind, actions, num_particles, seed: as in `fisher`.

    Returns:
        ``{parameter: (F v) of its shape}``.

    Raises:
        InvalidInput: ``vector`` does not fit the parameters.
        PpgradError: as in `fisher`.

    Source: Martens (2010), Deep learning via Hessian-free optimization, section 4.
    """
    ready = _checked(program, args, kind, actions, num_particles)
    with pure(seed, ready), param_store_unchanged():
        product = FisherProduct(Divergence(ready, kind, num_particles, actions))
        return like(product(_flat_vector(vector, product)).detach(), product.parameters)


def _checked(program: Any, args: Any, kind: str, actions: Tensor | None, num_particles: int) -> Program:
    if kind not in ("exact", "empirical"):
        raise InvalidInput(f"kind={kind!r}: write 'exact' or 'empirical'.")
    if actions is not None and kind == "exact":
        raise InvalidInput("kind='exact' takes the expectation over actions. Leave actions out, or write 'empirical'.")
    if isinstance(num_particles, bool) or not isinstance(num_particles, int) or num_particles < 1:
        raise InvalidInput(f"num_particles={num_particles!r}: write an integer from 1 up.")
    if actions is not None and num_particles > 1:
        raise InvalidInput(f"num_particles={num_particles}: nothing is drawn where actions are given. Leave it out.")
    return check_call(program_of(program, None, as_arguments(args)))


def _is_policy(program: Program) -> bool:
    trace = traced(program)
    return not random_sites(trace) and isinstance(returned(trace), torch.distributions.Distribution)


def _from_scores(program: Program, actions: Tensor | None, num_particles: int) -> Tensor:
    """The mean of s sᵀ, from a score for each action."""
    with torch.no_grad():
        fn = program.model(*program.args)
    count = fn.batch_shape.numel()
    if not count:
        raise InvalidInput(f"The policy's batch has shape {tuple(fn.batch_shape)}: write one observation at least.")
    products = []
    for _ in range(num_particles):
        scores = score(program.model, program.args, fn.sample() if actions is None else actions)
        rows = torch.cat([s.reshape(count, -1) for s in scores.values()], 1)
        products.append(rows.T @ rows / (count * num_particles))
    return torch.stack(products).sum(0)


def _flat_vector(vector: Any, product: FisherProduct) -> Tensor:
    sizes = {name: tuple(parameter.shape) for name, parameter in product.parameters.items()}
    if isinstance(vector, Mapping):
        if {name: tuple(torch.as_tensor(v).shape) for name, v in vector.items()} == sizes:
            return flat([vector[name] for name in sizes])
    elif isinstance(vector, Tensor) and vector.shape == (product.count,):
        return vector
    raise InvalidInput(
        f"The vector does not fit the parameters {', '.join(f'{name} {size}' for name, size in sizes.items())}. "
        f"Write {{parameter: tensor}} for all of them, or a flat tensor of {product.count} numbers."
    )
