"""Reweighted wake-sleep."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppgrad.core import Estimator, Facts, InvalidInput, InvalidProgram, Unsupported
from ppgrad.core.arguments import is_number
from ppgrad.engine.checking.first_run import Prepared
from ppgrad.engine.running.record import Record, Served
from ppgrad.engine.running.site import Site
from ppgrad.estimators import ScoreFunction
from ppgrad.objectives._shared.lanes import total_of_lanes
from ppgrad.objectives._shared.requirements import check_only_scores
from ppgrad.objectives.importance_bound import importance_costs
from ppgrad.objectives.iwelbo import IWELBO

_SLEEP = "sleep/"


class ReweightedWakeSleep(IWELBO):
    """The model by the `IWELBO`, the guide by KL(p(z | x) ‖ q(z | x)), each with a gradient of its own.

    | phase | gradient of ascent |
    | --- | --- |
    | wake, of the model | Σ_k w̃_k ∇_θ log p_θ(x, z_k) |
    | wake, of the guide | ι Σ_k w̃_k ∇_φ log q_φ(z_k ∣ x) |
    | sleep, of the guide | (1 − ι) ∇_φ log q_φ(z' ∣ x'), (z', x') ~ p_θ |

    z_1, …, z_K are drawn from q, w̃ are their weights p / q, normalized to the sum 1; ι is the insomnia. All
    draws are held fixed, so discrete and continuous sites need no other estimator. The gradient of the model's
    parameters is that of the `IWELBO`; what the wake phase gives the guide's is biased by O(1/K), what the sleep
    phase gives them is unbiased, of a divergence averaged over the model's own data. The loss is minus the
    `IWELBO`.

    The sleep phase runs the model with its observations drawn, too, and hands those to the guide as
    ``observations={site: value}``; a guide that takes them says ``observations=None`` in its signature. There is
    a dream for each sample.

    Args:
        estimator: None or ``ScoreFunction()``: every site is served so.
        insomnia: ι in [0, 1], the share of the wake phase in the guide's gradient.
        num_importance: K ≥ 2.
        options: see `Objective`.

    Raises:
        InvalidInput: ``insomnia`` is outside of [0, 1], or ``num_importance`` is less than 2.
        InvalidProgram: when run, with ``insomnia`` below 1: the guide takes no ``observations``, it draws a site
            that the model has not, or the model has a factor.
        Unsupported: when run: a site asks for another estimator.

    Source: Bornschein & Bengio (2015), Reweighted wake-sleep; Le, Kosiorek, Siddharth, Teh & Wood (2019),
    Revisiting reweighted wake-sleep for models with stochastic control flow.
    """

    def __init__(
        self,
        estimator: Estimator | None = None,
        *,
        insomnia: float = 1.0,
        num_importance: int = 8,
        **options: Any,
    ):
        if not is_number(insomnia) or not 0.0 <= insomnia <= 1.0:
            raise InvalidInput(
                f"ReweightedWakeSleep(insomnia={insomnia!r}): insomnia is a share in [0, 1]. Write insomnia=1.0 for "
                "the wake phase alone."
            )
        if not isinstance(num_importance, bool) and num_importance == 1:
            raise InvalidInput(
                "ReweightedWakeSleep(num_importance=1): one sample has the weight 1, whatever it is worth. Write "
                "num_importance=2."
            )
        self.insomnia = insomnia
        self._sleeping: tuple[Any, Any, Callable[..., Any]] | None = None
        super().__init__(ScoreFunction() if estimator is None else estimator, num_importance=num_importance, **options)

    @property
    def facts(self) -> Facts:
        return Facts(source="Bornschein & Bengio (2015)", biased=True, order="O(1/K), of the guide's gradient")

    def prepare(self, model: Any, guide: Any = None, args: Any = (), kwargs: Any = None) -> Prepared:
        if self.insomnia < 1.0 and guide is not None:
            _check_takes_observations(guide)
            if self._sleeping is None or self._sleeping[0] is not model or self._sleeping[1] is not guide:
                self._sleeping = model, guide, functools.partial(_awake_then_asleep, model, guide)
            guide = self._sleeping[2]
        return super().prepare(model, guide, args, kwargs)

    def costs(self, sites: Sequence[Site]) -> list[Tensor | None]:
        if self.all_orders:
            raise Unsupported("ReweightedWakeSleep has no second derivative: it is no gradient of one function.")
        return [self._dreamt(site) if _is_dreamt(site.name) else self._turned(site) for site in sites]

    def combine(self, records: Sequence[Record]) -> tuple[Tensor, Tensor, tuple[Served, ...]]:
        check_only_scores(records, "ReweightedWakeSleep()", "IWELBO(…)")
        loss, direct, _ = super().combine([_awake(record) for record in records])
        dreams = [_dreams(record) for record in records]
        if not torch.is_grad_enabled() or not any(map(len, dreams)):
            return loss, direct, ()
        asleep = torch.cat([total_of_lanes(costs) for costs in dreams]).mean()
        return loss, direct + (asleep - asleep.detach()), ()

    def _turned(self, site: Site) -> Tensor | None:
        """log q − log p, where log q of a draw has a gradient of the other sign and the wake phase's share of it."""
        (cost,) = importance_costs([site])
        if cost is None or not (site.in_guide and site.is_random):
            return cost
        return cost.detach() - self.insomnia * (cost - cost.detach())

    def _dreamt(self, site: Site) -> Tensor | None:
        if site.is_random:
            raise InvalidProgram(
                f"The guide draws site '{site.name.removeprefix(_SLEEP)}', which the model has not: there is no dream "
                "of it. Write ReweightedWakeSleep(insomnia=1.0)."
            )
        return -(1.0 - self.insomnia) * site.weighted_log_prob


def _awake_then_asleep(model: Any, guide: Any, *args: Any, **kwargs: Any) -> None:
    """The guide; then the guide again, of data and values that the model has drawn."""
    guide(*args, **kwargs)
    with poutine.block():
        dream = poutine.trace(poutine.uncondition(model)).get_trace(*args, **kwargs)
    latent: dict[str, Tensor] = {}
    observed: dict[str, Tensor] = {}
    for name, node in dream.nodes.items():
        if node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample":
            if isinstance(node["fn"], Unit):
                raise InvalidProgram(
                    f"No data can be drawn from a model with the factor or reward '{name}'. Write "
                    "ReweightedWakeSleep(insomnia=1.0)."
                )
            kept = observed if "was_observed" in node["infer"] else latent
            kept[name] = node["value"].detach()
    with _Renamed():
        poutine.condition(guide, data=latent)(*args, **{**kwargs, "observations": observed})


class _Renamed(Messenger):
    """Gives the sites of the sleep phase names of their own."""

    def _pyro_sample(self, message: Any) -> None:
        message["name"] = _SLEEP + message["name"]
        message["infer"] = {**message["infer"], "is_auxiliary": True}


def _is_dreamt(name: str) -> bool:
    return name.startswith(_SLEEP)


def _awake(record: Record) -> Record:
    entries = [entry._replace(cost=None) if _is_dreamt(entry.name) else entry for entry in record.entries]
    return replace(record, entries=tuple(entries))


def _dreams(record: Record) -> list[Tensor]:
    return [entry.cost for entry in record.entries if _is_dreamt(entry.name) and entry.cost is not None]


def _check_takes_observations(guide: Any) -> None:
    call = guide.forward if isinstance(guide, torch.nn.Module) else guide
    taken = inspect.signature(call).parameters.values()
    if not any(one.name == "observations" or one.kind is one.VAR_KEYWORD for one in taken):
        raise InvalidProgram(
            "The sleep phase hands the guide what the model has drawn for its observations, and the guide takes no "
            "observations=. Write def guide(…, observations=None), or ReweightedWakeSleep(insomnia=1.0)."
        )
