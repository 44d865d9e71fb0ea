"""The gradient of a bound by summing over all draws at once: Pyro's traces alone, without the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions import Bernoulli, Categorical, Normal
from pyro.poutine.messenger import Messenger
from torch import Tensor


class Nodes(Messenger):
    """Gives each element of each random site the value with a given index, and keeps the log weights of all values.

    A discrete value weighs what its probability is; a Gaussian one is a node of Gauss–Hermite quadrature, moved with
    the distribution, and weighs what the node does.
    """

    def __init__(self, nodes: int, indices: Iterator[Tensor]):
        super().__init__()
        places, weights = np.polynomial.hermite_e.hermegauss(nodes)
        self._places, self._weights = torch.as_tensor(places), torch.as_tensor(weights / weights.sum()).log()
        self._indices = indices
        self.log_weights: list[Tensor] = []
        self.counts: list[int] = []

    def _pyro_sample(self, message: Mapping[str, object]) -> None:
        fn = message["fn"]
        if message["is_observed"] or type(fn).__name__ == "_Subsample":
            return
        elements = fn.batch_shape.numel()
        index = torch.stack([next(self._indices) for _ in range(elements)]).reshape(fn.batch_shape)
        base = fn.base_dist if hasattr(fn, "base_dist") else fn
        if isinstance(base, Normal):
            count = len(self._places)
            value = base.loc + base.scale * self._places[index]
            self.log_weights.append(self._weights[index].sum())
        else:
            assert isinstance(base, Bernoulli | Categorical)
            count = 2 if isinstance(base, Bernoulli) else base.logits.shape[-1]
            value = index.to(base.logits.dtype) if isinstance(base, Bernoulli) else index
            self.log_weights.append(base.log_prob(value).sum())
        self.counts += [count] * elements
        message["value"], message["done"] = value, True


def exact_gradient(
    model: Callable[[], None], guide: Callable[[], None], nodes: int = 2, at_once: int = 4096
) -> dict[str, Tensor]:
    """∇ E_q[log p − log q] by parameter.

    Args:
        model, guide: of Bernoulli, Categorical and Gaussian sites, none of them subsampled.
        nodes: of the quadrature at each Gaussian element; 2 are exact for a cubic.
        at_once: how many of all combinations of values are run in one call.
    """

    def runs(index: Tensor) -> Tensor:
        with Nodes(nodes, iter(index)) as given:
            drawn = poutine.trace(guide).get_trace()
        replayed = poutine.trace(poutine.replay(model, drawn)).get_trace()
        gain = replayed.log_prob_sum() - drawn.log_prob_sum()
        return torch.stack(given.log_weights).sum().exp() * gain

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    try:
        with pyro.validation_enabled(False):
            first = Nodes(nodes, iter(lambda: torch.zeros((), dtype=torch.long), None))
            with first:
                guide()
            every = torch.cartesian_prod(*map(torch.arange, first.counts)).reshape(-1, len(first.counts))
            bound = sum(torch.func.vmap(runs)(some).sum() for some in every.split(at_once))
        parameters = dict(pyro.get_param_store().named_parameters())
        return dict(zip(parameters, torch.autograd.grad(bound, list(parameters.values())), strict=True))
    finally:
        torch.set_default_dtype(default)
        pyro.clear_param_store()
