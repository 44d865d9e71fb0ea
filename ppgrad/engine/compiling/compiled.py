"""A function of tensors, traced once and compiled."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ppgrad.core.errors import InvalidProgram, NoCompiler, Unsupported
from ppgrad.core.generators import random_state, set_random_state
from ppgrad.engine.compiling.noise import Kind, drawing_up_front
from ppgrad.engine.running.lanes import CannotVectorize, vectorizable

logger = logging.getLogger("ppgrad")

_without_compiler: set[str] = set()
"""The backends of which it is known that they miss a compiler."""

_PLENTY = 2**40
"""More noise than a program draws: a traced tensor takes no memory."""


class Compiled:
    """``function(inputs)`` as one compiled graph of the tree's leaves; its noise is drawn in one call beforehand.

    Args:
        function: of one tree of tensors, to a tree of tensors. It must do the same operations whatever
            their values are.
        inputs: such as those whose leaves it will be called with.
        name: what it is called in the log.
        backend: of ``torch.compile``.

    Attributes:
        about: what the caller wants to know of the graph.
        operations: how many there are before they are fused.
        seconds: what tracing and compiling took.

    Raises:
        Unsupported: what the function does depends on values, or it changes tensors that it did not make.
    """

    def __init__(self, function: Callable[[Any], Any], inputs: Any, name: str, backend: str):
        from torch._dynamo.backends.registry import lookup_backend

        begin = time.perf_counter()
        self.about: Sequence[Any] = ()
        leaves, structure = tree_flatten(inputs)
        graph, self._result, self._noise = _traced(function, leaves, structure)
        _check_changes_nothing(graph)
        self.operations = sum(node.op == "call_function" for node in graph.graph.nodes)
        with torch.no_grad():  # the gradient is part of the graph
            self._function: Callable[..., Any] = lookup_backend(backend)(graph, self._inputs(leaves))
        self._run(leaves)
        self.seconds = time.perf_counter() - begin
        logger.info("Compiled %s: %d operations, %.1f s", name, self.operations, self.seconds)

    def __call__(self, leaves: list[Tensor]) -> Any:
        return tree_unflatten(self._run(leaves), self._result)

    def _run(self, leaves: list[Any]) -> list[Any]:
        with torch.no_grad():
            return list(self._function(*self._inputs(leaves)))

    def _inputs(self, leaves: list[Any]) -> list[Tensor]:
        return [*(leaf.detach() for leaf in leaves), *(kind.draw(count) for kind, count in self._noise.items())]


def compiled(function: Callable[[Any], Any], inputs: Any, name: str, backend: str) -> Compiled | None:
    """A `Compiled` function, or None, with one warning, on a machine that has no compiler."""
    from torch._inductor.exc import InvalidCxxCompiler

    if backend in _without_compiler:
        return None
    state = random_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own parts, while they compile
            return Compiled(function, inputs, name, backend)
    except Exception as error:
        if not any(isinstance(cause, InvalidCxxCompiler) for cause in _causes(error)):
            raise
    finally:
        set_random_state(state)
    _without_compiler.add(backend)
    warnings.warn(
        "No C++ compiler was found, so nothing is compiled. Install one, such as g++, or write compile=False.",
        NoCompiler,
        stacklevel=2,
    )
    return None


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
    return found


def _traced(
    function: Callable[[Any], Any], leaves: list[Tensor], structure: TreeSpec
) -> tuple[fx.GraphModule, TreeSpec, dict[Kind, int]]:
    """The graph of ``function``, the structure of its result, and how much noise of each kind it takes."""
    result: TreeSpec | None = None
    counts: Mapping[Kind, int] = {}
    kinds = _kinds(leaves)

    def flat(*tensors: Tensor) -> list[Any]:
        nonlocal result, counts
        with drawing_up_front(dict(zip(kinds, tensors[len(leaves) :], strict=True))) as noise:
            outputs, result = tree_flatten(function(tree_unflatten(tensors[: len(leaves)], structure)))
        counts = noise.counts()
        return outputs

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        inputs: list[Tensor] = [mode.from_tensor(leaf.detach(), static_shapes=True) for leaf in leaves]
        inputs += [torch.empty(_PLENTY, dtype=kind.dtype, device=kind.device) for kind in kinds]
        try:
            with vectorizable():
                graph = make_fx(flat, _allow_non_fake_inputs=True)(*inputs)
        except CannotVectorize as error:
            raise Unsupported(f"The program cannot be compiled: {error}. Write compile=False.") from error
    assert result is not None
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for kind, node in zip(kinds, placeholders[len(leaves) :], strict=True):
        if not counts[kind]:
            graph.graph.erase_node(node)
    graph.recompile()
    return graph, result, {kind: count for kind, count in counts.items() if count}


def _kinds(leaves: list[Tensor]) -> list[Kind]:
    """Every kind of noise that a function of ``leaves`` may take."""
    devices = dict.fromkeys([torch.device("cpu"), *(leaf.device for leaf in leaves)])
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    return [Kind(law, dtype, device) for law in ("normal", "uniform") for dtype in dtypes for device in devices]


def _check_changes_nothing(graph: fx.GraphModule) -> None:
    """Raise if a tensor that the function did not make is changed in place, or hides a parameter."""
    given = {node for node in graph.graph.nodes if node.op in ("placeholder", "get_attr")}
    for node in given:
        held = getattr(graph, node.target, None) if node.op == "get_attr" else None
        stopped = all(user.target is torch.ops.aten.detach.default for user in node.users)
        if isinstance(held, Tensor) and held.requires_grad and not stopped:
            raise InvalidProgram(
                f"The program uses a tensor of shape {tuple(held.shape)} that requires a gradient and has no name. "
                "Register it with pyro.param or pyro.module, or pass it (or its module) as an argument."
            )
    for node in graph.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
            alias = argument.alias_info
            if alias is None or not isinstance(value, fx.Node) or value not in given:
                continue
            if alias.is_write:
                raise Unsupported(
                    f"The program changes a tensor that it holds in place, by {node.target}: a module's buffer, say. "
                    "Put the module in eval mode, or write compile=False."
                )
            given.add(node)
