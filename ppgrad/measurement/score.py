"""`score`: the gradient of a log density, one for each sample."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ppgrad.core import InvalidInput, NonFinite, PpgradError
from ppgrad.core.distributions import distribution_name, is_deterministic
from ppgrad.core.generators import other_draws, random_state, set_random_state
from ppgrad.engine.program.parameters import buffers_unchanged, named_parameters, param_store_unchanged, registered_in
from ppgrad.engine.program.program import Program, program_of
from ppgrad.engine.running.lanes import CannotVectorize, LaneTensors, note_of_loop, vectorizable, vectorized

Sampled = Tensor | Mapping[str, Tensor]
"""Actions of a policy, or the value of every random site of a Pyro program."""

_Lane = Callable[[Any, Any], Tensor]
"""From the arguments and the actions of one sample to a log density."""


def score(program: Callable[..., Any], args: Any, actions: Sampled) -> dict[str, Tensor]:
    """s = ∇_θ log π_θ(a|φ), one for each sample, under ``torch.func.vmap`` where that can carry it.

    Args:
        program: a policy, which is a module or a function that returns a distribution; or a Pyro
            program with random sites, such as a guide.
        args: what it is called with: one tensor, or a tuple. Those of a policy have its batch
            dimensions in front.
        actions: for a policy, an action for each element of its batch; for a Pyro program,
            ``{site: values}`` for every random site, each with a dimension of samples in front. They are constants: of
            draws by ``rsample`` the graph is left out.

    Returns:
        ``{parameter: (*batch, *shape)}``, or ``(samples, *shape)`` for a Pyro program; with respect
        to the unconstrained value of a constrained parameter. Names are as in `gradient`.

    Raises:
        InvalidInput: actions or arguments of another shape than the policy's batch, or an action
            outside of the support; a random site without a value, or a value without a site.
        NonFinite: a score is NaN or infinite.

    Source: Williams (1992), Simple statistical gradient-following algorithms, section 3.

    >>> import torch, ppgrad
    >>> policy = ppgrad.CategoricalPolicy(features=3, actions=2, hidden=())
    >>> {name: tuple(s.shape) for name, s in ppgrad.score(policy, torch.ones(5, 3), torch.zeros(5)).items()}
    {'network.0.weight': (5, 2, 3), 'network.0.bias': (5, 2)}
    """
    args = as_arguments(args)
    ready = check_call(program_of(program, None, args))
    with param_store_unchanged(), buffers_unchanged(ready), torch.enable_grad():
        if isinstance(actions, Mapping):
            return _score_of_program(ready, {name: torch.as_tensor(x).detach() for name, x in actions.items()})
        return _score_of_policy(ready, torch.as_tensor(actions).detach())


def as_arguments(args: Any) -> tuple[Any, ...]:
    """Positional arguments: a tuple as it is, anything else as the only one."""
    return args if isinstance(args, tuple) else (args,)


def check_call(program: Program) -> Program:
    """Raise unless the program is a function that takes its arguments.

    Raises:
        InvalidInput: it does not.
    """
    function = program.model
    try:
        signature = inspect.signature(function.forward if isinstance(function, torch.nn.Module) else function)
    except ValueError:  # a built-in function has none
        return program
    try:
        signature.bind(*program.args, **program.kwargs)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise InvalidInput(
            f"{name} cannot be called with args=: {error}. Write args=observations, or a tuple."
        ) from error
    return program


def parameters_of(program: Program, trace: poutine.Trace) -> dict[str, Tensor]:
    """The parameters of a program that has been traced, by name; at least one."""
    found = named_parameters(program, registered_in([trace]))
    if not found:
        raise InvalidInput("The program has no parameter that requires a gradient. Pass a policy, or use pyro.param.")
    return found


def traced(program: Program) -> poutine.Trace:
    """One ordinary run, with draws that the caller will not see; it may register parameters with Pyro."""
    with other_draws():
        return poutine.trace(program.model).get_trace(*program.args, **program.kwargs)


def returned(trace: poutine.Trace) -> Any:
    """What a traced program returned."""
    return trace.nodes["_RETURN"]["value"]


def random_sites(trace: poutine.Trace) -> list[str]:
    """The sample sites of a trace that are neither observed nor deterministic."""
    return [
        name
        for name, node in trace.nodes.items()
        if node["type"] == "sample"
        and not node["is_observed"]
        and type(node["fn"]).__name__ != "_Subsample"
        and not is_deterministic(node["fn"])
    ]


def as_policy(program: Program, trace: poutine.Trace) -> TorchDistribution:
    """The distribution that a policy returned.

    Raises:
        InvalidInput: it returned none.
    """
    fn = returned(trace)
    if not isinstance(fn, torch.distributions.Distribution):
        raise InvalidInput(
            f"A policy returns a distribution, not {type(fn).__name__}. Return one, or, for a Pyro program with "
            "random sites, write actions={site: values}."
        )
    return fn


def check_support(fn: TorchDistribution, actions: Tensor) -> None:
    """Raise if an action lies outside of the distribution's support."""
    if not actions.numel():
        return
    try:
        inside = fn.support.check(actions)
    except NotImplementedError:
        return
    if not bool(inside.all()):
        index = tuple((~inside).nonzero()[0].tolist())
        raise InvalidInput(
            f"The action {actions[index].tolist()} at index {index} is outside of the support of "
            f"{distribution_name(fn)}. Keep actions as they were drawn, inside of the bounds."
        )


def _score_of_policy(program: Program, actions: Tensor) -> dict[str, Tensor]:
    trace = traced(program)
    fn = as_policy(program, trace)
    batch = fn.batch_shape
    if actions.shape != batch + fn.event_shape:
        raise InvalidInput(
            f"The policy's actions have shape {tuple(batch + fn.event_shape)}, those given {tuple(actions.shape)}. "
            "Write one action for each element of its batch."
        )
    for leaf in tree_leaves(program.args):
        if not isinstance(leaf, Tensor) or leaf.shape[: len(batch)] != batch:
            what = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else repr(leaf)
            raise InvalidInput(
                f"Each argument of the policy has its batch dimensions {tuple(batch)} in front, and one has {what}. "
                "Bind what all samples share with functools.partial."
            )

    check_support(fn, actions)

    def log_prob(args: Any, action: Tensor) -> Tensor:
        return program.model(*args).log_prob(action)

    flat = tree_map(lambda x: x.reshape(batch.numel(), *x.shape[len(batch) :]), (program.args, actions))
    scores = _per_sample(program, parameters_of(program, trace), log_prob, *flat)
    return {name: s.reshape(*batch, *s.shape[1:]) for name, s in scores.items()}


def _score_of_program(program: Program, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    trace = traced(program)
    sites = random_sites(trace)
    wrong = {*sites} ^ {*values}
    if wrong or not sites:
        raise InvalidInput(
            f"actions= names {', '.join(sorted(values)) or 'no site'}; the random sites of the program are "
            f"{', '.join(sorted(sites)) or 'none'}. Write a value for each of them."
        )
    lengths = {len(value) if value.dim() else None for value in values.values()}
    if len(lengths) > 1 or None in lengths:
        raise InvalidInput("The values in actions= differ in their first dimension. Write one value for each sample.")
    for name in sites:
        expected = trace.nodes[name]["value"].shape
        if values[name].shape[1:] != expected:
            raise InvalidInput(
                f"Site '{name}' has values of shape {tuple(expected)}, those given have "
                f"{tuple(values[name].shape[1:])} after the samples. Write one value for each sample."
            )

    def log_prob(_: Any, sample: Mapping[str, Tensor]) -> Tensor:
        conditioned = poutine.trace(poutine.condition(program.model, data=dict(sample)))
        nodes = conditioned.get_trace(*program.args, **program.kwargs).nodes
        terms = [
            scale_and_mask(nodes[name]["fn"].log_prob(nodes[name]["value"]), nodes[name]["scale"], nodes[name]["mask"])
            for name in sites
        ]
        return torch.stack([term.sum() for term in terms]).sum()

    return _per_sample(program, parameters_of(program, trace), log_prob, (), dict(values))


def _per_sample(
    program: Program, parameters: Mapping[str, Tensor], log_prob: _Lane, args: Any, actions: Any
) -> dict[str, Tensor]:
    """The gradient of ``log_prob`` for each element of the first dimension of ``args`` and ``actions``."""
    count = len(tree_leaves(actions)[0])
    if not count:
        return {name: leaf.new_zeros(0, *leaf.shape) for name, leaf in parameters.items()}
    state = random_state()
    try:
        with vectorizable():
            scores = _vectorized(parameters, log_prob, args, actions, count)
    except PpgradError:
        raise
    except Exception as error:
        note_of_loop(program.model, error)
        set_random_state(state)
        scores = _looped(parameters, log_prob, args, actions, count)
    for name, found in scores.items():
        if not bool(torch.isfinite(found).all()):
            bad = (~torch.isfinite(found)).nonzero()[0]
            raise NonFinite(
                f"The score of parameter '{name}' is {float(found[tuple(bad)]):g} at sample {int(bad[0])}. "
                "Keep actions inside of the distribution's support, and parameters finite."
            )
    return scores


def _vectorized(
    parameters: Mapping[str, Tensor], log_prob: _Lane, args: Any, actions: Any, count: int
) -> dict[str, Tensor]:
    originals = list(parameters.values())
    lanes = [leaf.detach().expand(count, *leaf.shape).requires_grad_() for leaf in originals]

    def one(token: Tensor, args: Any, actions: Any, *own: Tensor) -> Tensor:
        replacements = {id(old): new for old, new in zip(originals, own, strict=True)}
        with LaneTensors(token, replacements):
            return log_prob(args, actions)

    log_probs = vectorized(one, args, actions, *lanes, lanes=count)
    gradients = torch.autograd.grad(log_probs.sum(), [*lanes, *originals], allow_unused=True)
    if any(gradient is not None for gradient in gradients[len(lanes) :]):
        raise CannotVectorize("a parameter enters by a way that vmap cannot see, such as an autograd.Function")
    return {
        name: torch.zeros_like(lane) if gradient is None else gradient
        for name, lane, gradient in zip(parameters, lanes, gradients, strict=False)
    }


def _looped(
    parameters: Mapping[str, Tensor], log_prob: _Lane, args: Any, actions: Any, count: int
) -> dict[str, Tensor]:
    rows = []
    for i in range(count):
        one = log_prob(*tree_map(lambda x, i=i: x[i], (args, actions)))
        rows.append(torch.autograd.grad(one.sum(), list(parameters.values()), materialize_grads=True))
    return {name: torch.stack(column) for name, column in zip(parameters, zip(*rows, strict=True), strict=True)}
