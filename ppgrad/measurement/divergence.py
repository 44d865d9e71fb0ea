"""How far a program's distribution has moved: a divergence whose Hessian is the Fisher matrix."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyro.poutine as poutine
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution, kl_divergence, transforms

from ppgrad.core import CannotBeExact, InvalidInput, Unsupported
from ppgrad.core.distributions import distribution_name
from ppgrad.core.generators import other_draws
from ppgrad.core.supports import moving_bound
from ppgrad.engine.program.parameters import named_parameters, registered_in
from ppgrad.engine.program.program import Program
from ppgrad.measurement.score import check_support, random_sites, returned

Kind = Literal["exact", "empirical", "either"]

_WITHOUT_PARAMETERS = (
    transforms.ExpTransform,
    transforms.SigmoidTransform,
    transforms.SoftplusTransform,
    transforms.StickBreakingTransform,
    transforms.TanhTransform,
)
"""Transforms that no parameter enters, so that they leave a divergence as it is."""


@dataclass(frozen=True)
class Placed:
    """One random site of a run, or the action of a policy: its distribution and its value.

    ``scale`` and ``mask`` are what its log density is multiplied by.
    """

    name: str
    fn: TorchDistribution
    value: Tensor
    scale: float | Tensor
    mask: Any


class Divergence:
    """D(θ) = KL(p_{θ₀} ‖ p_θ), θ₀ being the parameters at construction; ``divergence()`` is D now.

    For a policy, the mean over its batch; for a Pyro program, of the joint distribution of its
    random sites. At each site D is torch's ``kl_divergence`` given what was drawn before it, or,
    where torch has none, the estimate E[r − 1 − log r] with r = p_θ(a)/p_{θ₀}(a) at the values
    drawn. The Hessian of either at θ₀ is the Fisher matrix of the site: exact, or Σ s sᵀ over the
    values drawn.

    Running the program may change the buffers of its modules; whoever calls puts them back.

    Args:
        program: a policy or a Pyro program, with its arguments.
        kind: ``"exact"`` refuses where torch has no divergence; ``"empirical"`` always takes the
            estimate; ``"either"`` takes what there is.
        particles: how many runs, or draws of each action, to average over.
        actions: the actions of a policy, instead of draws.

    Raises:
        CannotBeExact: ``kind`` is ``"exact"`` and a site has no divergence.
        Unsupported: a support moves with a parameter, so that there is no Fisher matrix.
        InvalidInput: the program has no random site and returns no distribution.

    Source: Amari (1998), Natural gradient works efficiently in learning, section 2; the estimate:
    Schulman (2020), Approximating KL divergence, k3.
    """

    def __init__(self, program: Program, kind: Kind = "either", particles: int = 1, actions: Tensor | None = None):
        self._program = program
        self._kind = kind
        self._references: list[tuple[poutine.Trace, list[Placed]]] = []
        with other_draws(), torch.no_grad():
            for _ in range(particles):
                trace = poutine.trace(program.model).get_trace(*program.args, **program.kwargs)
                sites = placed(trace, actions=actions)
                self._references.append((trace, [replace(site, fn=frozen(site.fn)) for site in sites]))
        self.parameters = named_parameters(program, registered_in([self._references[0][0]]))
        if not self.parameters:
            raise InvalidInput("The program has no parameter that requires a gradient.")
        if kind == "exact":
            for site in self._references[0][1]:
                if closed_form(site.fn, site.fn) is None:
                    raise CannotBeExact(
                        f"Site '{site.name}': torch has no divergence of {distribution_name(site.fn)}. "
                        "Write kind='empirical'."
                    )

    def __call__(self) -> Tensor:
        """The divergence from the parameters at construction to those of now, with a graph."""
        terms = []
        with other_draws():
            for reference, before in self._references:
                replayed = poutine.trace(poutine.replay(self._program.model, trace=reference))
                trace = replayed.get_trace(*self._program.args, **self._program.kwargs)
                values = {site.name: site.value for site in before}
                now = {site.name: site for site in placed(trace, values=values)}
                for site in now.values() if torch.is_grad_enabled() else ():
                    check_fixed_support(site)
                terms += [self._term(site, now[site.name].fn) for site in before if site.name in now]
        return torch.stack(terms).sum() / len(self._references)

    def _term(self, before: Placed, fn: TorchDistribution) -> Tensor:
        divergence = None if self._kind == "empirical" else closed_form(before.fn, fn)
        if divergence is None:
            log_ratio = fn.log_prob(before.value) - before.fn.log_prob(before.value)
            divergence = torch.expm1(log_ratio) - log_ratio
        return scale_and_mask(divergence, before.scale, before.mask).sum()


def check_fixed_support(site: Placed) -> None:
    """Raise if the support of a site moves with a parameter."""
    if moving_bound(site.fn):
        raise Unsupported(
            f"Site '{site.name}': the support of {distribution_name(site.fn)} moves with a parameter, so that it has "
            "no Fisher matrix. Choose a distribution with a fixed support."
        )


class FisherProduct:
    """v ↦ F v, the Hessian of a `Divergence` where it is zero times v, by differentiating twice.

    Vectors are flat: the parameters one after the other.
    """

    def __init__(self, divergence: Divergence):
        self.parameters = divergence.parameters
        leaves = list(self.parameters.values())
        with torch.enable_grad():
            found = torch.autograd.grad(divergence(), leaves, create_graph=True, allow_unused=True)
        self.unreached = [name for name, gradient in zip(self.parameters, found, strict=True) if gradient is None]
        """The parameters that enter no distribution."""
        pairs = zip(leaves, found, strict=True)
        self._gradient = flat([torch.zeros_like(leaf) if g is None else g for leaf, g in pairs])
        self.count = self._gradient.numel()

    def __call__(self, vector: Tensor) -> Tensor:
        """F v."""
        return flat(self._products(vector))

    def matrix(self) -> Tensor:
        """F, shape (n, n)."""
        like = self._gradient
        rows = torch.eye(self.count, dtype=like.dtype, device=like.device)
        return torch.stack([self(row) for row in rows])

    def _products(self, vector: Tensor) -> Sequence[Tensor]:
        if not self._gradient.requires_grad:
            return [torch.zeros_like(leaf) for leaf in self.parameters.values()]
        return torch.autograd.grad(
            self._gradient, list(self.parameters.values()), vector, retain_graph=True, materialize_grads=True
        )


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers of all tensors, one after the other."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def like(vector: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A flat vector in the shapes of the parameters."""
    pieces = torch.split(vector, [parameter.numel() for parameter in parameters.values()])
    return {name: piece.reshape(p.shape) for (name, p), piece in zip(parameters.items(), pieces, strict=True)}


def placed(
    trace: poutine.Trace, *, actions: Tensor | None = None, values: Mapping[str, Tensor] | None = None
) -> list[Placed]:
    """The random sites of a trace; or the action of the policy that returned a distribution.

    Args:
        trace: of one run.
        actions: the policy's actions.
        values: what was drawn in the run to compare with; None to draw.
    """
    names = random_sites(trace)
    if names:
        if actions is not None:
            raise InvalidInput("actions= is for a policy, which returns a distribution; this program has random sites.")
        nodes = trace.nodes
        return [Placed(n, nodes[n]["fn"], nodes[n]["value"], nodes[n]["scale"], nodes[n]["mask"]) for n in names]
    fn = returned(trace)
    if not isinstance(fn, torch.distributions.Distribution):
        raise InvalidInput(
            f"The program has no random site, and returns no distribution but {type(fn).__name__}. Pass a policy, or "
            "a program with ppgrad.policy or pyro.sample in it."
        )
    shape = fn.batch_shape + fn.event_shape
    if not fn.batch_shape.numel():
        raise InvalidInput(f"The policy's batch has shape {tuple(fn.batch_shape)}: write one observation at least.")
    if actions is not None and actions.shape != shape:
        raise InvalidInput(
            f"The policy's actions have shape {tuple(shape)}, those given {tuple(actions.shape)}. "
            "Write one action for each element of its batch."
        )
    if actions is not None:
        check_support(fn, actions)
    value = values["action"] if values else fn.sample() if actions is None else actions
    return [Placed("action", fn, value, 1 / fn.batch_shape.numel(), None)]


def frozen(thing: Any) -> Any:
    """A copy of a distribution that does not move with the parameters, nor carries a gradient to them."""
    if isinstance(thing, Tensor):
        return thing.detach().clone()
    if isinstance(thing, torch.nn.Module):
        return copy.deepcopy(thing).requires_grad_(False)
    if isinstance(thing, list | tuple) and type(thing) in (list, tuple):
        return type(thing)(map(frozen, thing))
    if isinstance(thing, dict):
        return {key: frozen(value) for key, value in thing.items()}
    if not isinstance(thing, torch.distributions.Distribution | transforms.Transform):
        return thing
    other = copy.copy(thing)
    vars(other).update(frozen(vars(thing)))
    return other


def closed_form(p: TorchDistribution, q: TorchDistribution) -> Tensor | None:
    """torch's KL(p ‖ q), or None where it has none that can be relied on."""
    if not all(_is_fixed(transform) for fn in (p, q) for transform in _transforms(fn)):
        return None  # torch compares the transforms' values, and so misses their gradient
    try:
        divergence: Tensor = kl_divergence(_unexpanded(p), _unexpanded(q))
    except NotImplementedError:
        return None
    return divergence.expand(p.batch_shape)


def _unexpanded(fn: Any) -> Any:
    while isinstance(fn, ExpandedDistribution):
        fn = fn.base_dist
    return fn


def _transforms(fn: Any) -> list[Any]:
    """The transforms that are not a part of a distribution's own class."""
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    if not isinstance(fn, TransformedDistribution):
        return []
    return [*fn.transforms, *_transforms(fn.base_dist)]


def _is_fixed(transform: Any) -> bool:
    parts = getattr(transform, "parts", None)
    if parts is not None:
        return all(map(_is_fixed, parts))
    return isinstance(transform, _WITHOUT_PARAMETERS)
