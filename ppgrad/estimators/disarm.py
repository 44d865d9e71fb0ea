"""DisARM: the antithetic pair of ARM with its noise integrated out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.core import Draw, Estimator, Facts, Memory, Needs, Sample, Signal, SiteInfo
from ppgrad.estimators.discrete.contrast import contrast, with_weights
from ppgrad.estimators.discrete.elements import not_categorical
from ppgrad.estimators.discrete.stick_breaking import stick_pair


@dataclass(frozen=True)
class DisARM(Estimator):
    """½ (f(b) − f(b̃)) (−1)^b̃ 1[b ≠ b̃] σ(|φ|), with b = 1[1 − u < p] and b̃ = 1[u < p].

    Also known as U2G. The antithetic sample b̃ is one branch, whatever the number of elements. A
    category is the first success of a row of Bernoullis with φ_k = logit_k − log Σ_{j>k} exp logit_j
    (sticks), each of which has a term as above; sticks beyond both samples are left out, since their
    terms have mean zero. This is DisARM-SB.

    Needs Bernoulli, Categorical or OneHotCategorical elements.

    Source: Dong, Mnih & Tucker (2020), DisARM: an antithetic gradient estimator for binary latent
    variables, eq. 5; Yin et al. (2020); sticks: Dong, Mnih & Tucker (2021), Coupled gradient
    estimators for discrete latent variables, section 3.2.
    """

    facts: ClassVar[Facts] = Facts(source="Dong, Mnih & Tucker (2020), DisARM, eq. 5")
    needs: ClassVar[Needs] = Needs(alternatives=True)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)

    def refuses(self, site: SiteInfo) -> str | None:
        return not_categorical(site.fn)

    def sample(self, fn: TorchDistribution) -> Sample:
        pair = stick_pair(fn)
        differ = (pair.drawn != pair.twin) * pair.matters
        size = 0.5 * torch.sigmoid(pair.logits.detach().abs())
        weight = (pair.logits * (2 * pair.twin - 1) * differ * size).sum(-1)
        return Sample(pair.value, with_weights([weight]), pair.antithetic.unsqueeze(0))

    def surrogate(self, draw: Draw, signal: Signal, memory: Memory) -> Tensor | None:
        return contrast(draw, signal)
