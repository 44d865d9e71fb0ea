"""ARM: augment, reinforce, merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.estimators.discrete.contrast import contrast, with_weights
from ppgrad.estimators.discrete.elements import not_categorical
from ppgrad.estimators.discrete.stick_breaking import stick_pair


@dataclass(frozen=True)
class ARM(Estimator):
    """(f(1[u > σ(−φ)]) − f(1[u < σ(φ)])) (u − ½).

    One branch, the antithetic sample. `DisARM` integrates u out and is never worse. A category is
    the first success of a row of Bernoullis with φ_k = logit_k − log Σ_{j>k} exp logit_j (sticks),
    each of which has a term as above; sticks beyond both samples are left out.

    Needs Bernoulli, Categorical or OneHotCategorical elements.

    Source: Yin & Zhou (2019), ARM: augment-REINFORCE-merge gradient for stochastic binary networks, eq. 4;
    sticks: Dong, Mnih & Tucker (2021), section 3.2.
    """

    facts: ClassVar[Facts] = Facts(source="Yin & Zhou (2019), ARM: Augment-REINFORCE-Merge, eq. 4")
    needs: ClassVar[Needs] = Needs(alternatives=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return not_categorical(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        pair = stick_pair(fn)
        weight = (pair.logits * (0.5 - pair.noise) * pair.matters).sum(-1)
        return Sample(pair.value, with_weights([weight]), pair.antithetic.unsqueeze(0))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return contrast(draw, signal)
