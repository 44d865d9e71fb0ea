"""The natural gradient, as an optimizer for torch and for Pyro."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor

from ppgrad.core import InvalidInput, InvalidProgram, NonFinite
from ppgrad.core.generators import other_draws
from ppgrad.engine.program.parameters import buffers_unchanged, named_parameters
from ppgrad.engine.program.program import Program, program_of
from ppgrad.measurement.divergence import Divergence, FisherProduct, flat, like
from ppgrad.measurement.score import as_arguments
from ppgrad.train.conjugate_gradients import conjugate_gradients

_HALVINGS = 60


class Moved(NamedTuple):
    """What one step of `NaturalGradient` did.

    Args:
        divergence: KL(before ‖ after), of a policy its mean over the batch.
        iterations: products with the Fisher matrix.
        residual: of the linear system, relative to the gradient.
        fraction: how much of the step the trust region left, from 0 to 1.
    """

    divergence: float
    iterations: int
    residual: float
    fraction: float


class NaturalGradient(torch.optim.Optimizer, PyroOptim):
    """θ ← θ − lr (F + λ I)⁻¹ ∇ loss, F the Fisher matrix of a policy or a guide; F is never formed.

    Conjugate gradients solve for the step with products F v. With a trust region δ a step that
    would move the distribution further than KL(before ‖ after) = δ is shortened until it does not.

    It is a torch optimizer, and one that ``pyro.infer.SVI`` takes:

        optimizer = NaturalGradient(policy)
        loss.backward()
        optimizer.at(observations).step()

        svi = SVI(model, guide, NaturalGradient(guide, args=(data,)), loss=ppgrad.ELBO())
        ppgrad.fit(objective, rollout, optimizer=NaturalGradient(rollout))

    F is exact at each site that torch knows the divergence of, and averaged over draws elsewhere;
    what a site's distribution depends on is drawn (see `fisher`). The draws depend on the global
    seed and leave the generators as they are.

    Args:
        program: whose parameters move: a policy (a module or function that returns a distribution)
            or a Pyro program with random sites, such as a guide.
        args: what it is called with, until `at` says otherwise: one tensor, or a tuple.
        kwargs: its keyword arguments.
        lr: the length of the step; 1 is the whole natural gradient.
        damping: λ ≥ 0; the step tends to ∇ loss / λ as it grows.
        trust_region: δ > 0, or None for no bound. For a policy the mean over the batch, for a Pyro
            program of the joint distribution of one run.
        iterations: the most products F v for one step.
        num_particles: how many runs of a Pyro program F is averaged over.

    Raises:
        InvalidInput: an argument is out of its range.
        InvalidProgram: a parameter with a gradient does not enter the program's distributions, such as
            a critic's, or a model's in `SVI`; nothing has moved.
        NonFinite: a gradient is NaN or infinite; nothing has moved.

    Source: Amari (1998), Natural gradient works efficiently in learning, eq. 3; Schulman et al.
    (2015), Trust region policy optimization, appendix C.
    """

    def __init__(
        self,
        program: Callable[..., Any],
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        lr: float = 1.0,
        damping: float = 1e-2,
        trust_region: float | None = 1e-2,
        iterations: int = 10,
        num_particles: int = 1,
    ):
        if not callable(program):
            raise InvalidInput(
                f"NaturalGradient({type(program).__name__} …): write a policy, or a Pyro program such as a guide."
            )
        _check("lr", lr, 0 < _number(lr) < math.inf, "a positive number")
        _check("damping", damping, 0 <= _number(damping) < math.inf, "a number from 0 up")
        if trust_region is not None:
            _check("trust_region", trust_region, 0 < _number(trust_region) < math.inf, "a positive number or None")
        for name, value in (("iterations", iterations), ("num_particles", num_particles)):
            _check(name, value, isinstance(value, int) and _number(value) >= 1, "an integer from 1 up")
        self.program = program
        self.num_particles = num_particles
        self.latest: Moved | None = None
        self._asked: list[Tensor] = []
        self.at(*as_arguments(args), **(kwargs or {}))
        group = {"params": list(named_parameters(self._program(), {}).values())}
        defaults = {"lr": lr, "damping": damping, "trust_region": trust_region, "iterations": iterations}
        super().__init__([group], defaults)

    def at(self, *args: Any, **kwargs: Any) -> NaturalGradient:
        """Take the Fisher matrix at these arguments of the program from now on, such as the observations."""
        self._args, self._kwargs = args, kwargs
        return self

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the program's parameters along minus their ``grad``; see `latest` for what it did.

        Args:
            closure: evaluates the loss and its gradients again, as torch's optimizers have it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update(self._asked)
        return loss

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """One step, as ``pyro.infer.SVI`` asks for it.

        Raises:
            InvalidProgram: as for `NaturalGradient`.
        """
        self._asked = [leaf for leaf in params if leaf.grad is not None]
        try:
            self.step()
        finally:
            self._asked = []

    def get_state(self) -> dict[str, Any]:
        """The options, as Pyro's optimizers hand them out to be saved."""
        return {option: value for option, value in self.param_groups[0].items() if option != "params"}

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Take the options from `get_state`."""
        self.param_groups[0].update(state_dict)

    def _program(self) -> Program:
        return program_of(self.program, None, self._args, self._kwargs)

    def _update(self, asked: Iterable[Tensor]) -> None:
        ready = self._program()
        with buffers_unchanged(ready), other_draws(), self._explained():
            divergence = Divergence(ready, "either", self.num_particles)
            own = divergence.parameters
            self.param_groups[0]["params"] = list(own.values())
            known = {id(leaf) for leaf in own.values()}
            for leaf in asked:
                if id(leaf) not in known:
                    raise _without_metric(pyro.get_param_store().param_name(leaf) or f"of shape {tuple(leaf.shape)}")
            self.latest = self._move(divergence)

    def _move(self, divergence: Divergence) -> Moved:
        group, parameters = self.param_groups[0], divergence.parameters
        gradient = _gradient(parameters)
        if not bool(gradient.any()):
            return Moved(0.0, 0, 0.0, 1.0)
        product = FisherProduct(divergence)
        for name in product.unreached:
            leaf = parameters[name]
            if leaf.grad is not None and bool(leaf.grad.any()):
                raise _without_metric(name)
        damping, lr, radius = group["damping"], group["lr"], group["trust_region"]
        solved = conjugate_gradients(lambda v: product(v) + damping * v, gradient, group["iterations"])
        step = -lr * solved.x
        fraction = 1.0
        if radius is not None:
            predicted = float(step @ product(step)) / 2
            fraction = min(1.0, math.sqrt(radius / predicted)) if predicted > 0 else 1.0
        before = [leaf.detach().clone() for leaf in parameters.values()]
        for _ in range(_HALVINGS):
            moved = self._place(divergence, before, fraction * step)
            if moved <= (math.inf if radius is None else radius):
                return Moved(moved, solved.iterations, solved.residual, fraction)
            fraction /= 2
        self._place(divergence, before, torch.zeros_like(step))
        raise NonFinite(
            "After any step, however short, the divergence is not finite. Lower lr, or look for parameters at the edge "
            "of their range."
        )

    @torch.no_grad()
    def _place(self, divergence: Divergence, before: list[Tensor], step: Tensor) -> float:
        """Put the parameters at ``before`` plus a step, and return how far the distribution has moved."""
        parameters = divergence.parameters
        for leaf, old, change in zip(parameters.values(), before, like(step, parameters).values(), strict=True):
            leaf.copy_(old + change)
        return float(divergence())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A policy that was called without observations is a mistake of the caller."""
        try:
            yield
        except TypeError as error:
            if self._args or self._kwargs:
                raise
            raise InvalidInput(
                f"NaturalGradient calls its program without arguments, and: {error}. Write NaturalGradient(rollout), "
                "NaturalGradient(program, args=(…,)), or optimizer.at(observations) before step()."
            ) from error


def _without_metric(name: str) -> InvalidProgram:
    critic = re.fullmatch(r"\w+\.critic_\d+\$\$\$(.+)", name)  # as the objective registers it
    what = f"Parameter '{name.replace('$$$', '.')}'" if critic is None else f"The critic's parameter '{critic[1]}'"
    return InvalidProgram(
        f"{what} has a gradient and enters no distribution of NaturalGradient's program, "
        "so that it has no Fisher matrix. Freeze it with requires_grad_(False), or train it with another optimizer; "
        "ppgrad.fit does so with critics."
    )


def _gradient(parameters: Mapping[str, Tensor]) -> Tensor:
    """The gradients of all parameters, flat, zero where there is none."""
    for name, leaf in parameters.items():
        if leaf.grad is not None and not bool(torch.isfinite(leaf.grad).all()):
            bad = leaf.grad[~torch.isfinite(leaf.grad)]
            raise NonFinite(
                f"The gradient of parameter '{name}' is {float(bad[0]):g}; nothing has moved. "
                "Keep costs and parameters finite."
            )
    return flat([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in parameters.values()]).detach()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _check(name: str, value: Any, fits: bool, mend: str) -> None:
    if not fits:
        raise InvalidInput(f"NaturalGradient({name}={value!r}): write {mend}.")
