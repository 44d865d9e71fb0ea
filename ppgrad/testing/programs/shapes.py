"""Small programs of every shape, each for several families of distributions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ppgrad.testing.programs.data import Branch, Cost, Draw, Fn, Let, Loop, Observe, Place, Plate, Program

NOWHERE = Place()
N = Plate("n", 2)
M = Plate("m", 2, dim=-2)
MASK = "torch.tensor([True, False])"


@dataclass(frozen=True)
class Kind:
    """How a family is written in a shape.

    Args:
        family: of the distribution.
        fn: its parameters from a real-valued expression.
        prior: its parameters, fixed.
        number: the value as a number of a plate's shape, from the value's name; without an event.
        continuous: whether a gradient may pass through the value.
    """

    family: str
    fn: tuple[str, ...]
    prior: tuple[str, ...]
    number: str
    continuous: bool = False


_LOGITS = "({0}).unsqueeze(-1) * torch.tensor([1.0, -0.6, 0.3]) + torch.tensor([0.1, 0.3, -0.2])"
KINDS = {
    "bernoulli": Kind("bernoulli", ("{0}",), ("torch.tensor(-0.4)",), "{0}"),
    "categorical": Kind(
        "categorical", (_LOGITS,), ("torch.tensor([0.2, -0.3, 0.4])",), "torch.tensor([0.2, 1.0, -0.7])[{0}.long()]"
    ),
    "one-hot": Kind(
        "one-hot", (_LOGITS,), ("torch.tensor([0.2, -0.3, 0.4])",), "({0} * torch.tensor([0.2, 1.0, -0.7])).sum(-1)"
    ),
    "poisson": Kind("poisson", ("(0.3 * ({0}) - 0.6).exp()",), ("torch.tensor(0.7)",), "0.4 * {0}"),
    "normal": Kind("normal", ("{0}", "torch.tensor(0.7)"), ("torch.tensor(0.2)", "torch.tensor(1.1)"), "{0}", True),
    "gamma": Kind(
        "gamma", ("2.0 + (0.5 * ({0})).exp()", "torch.tensor(2.0)"), ("torch.tensor(2.5)", "torch.tensor(1.7)"),
        "0.7 * {0}", True,
    ),
}  # fmt: skip


def draw(kind: Kind, name: str, drive: str, place: Place = NOWHERE, site: str = "", **masks: Any) -> Draw:
    """A site without an event, whose parameters come from one real-valued expression."""
    fn = Fn(kind.family, tuple(text.format(drive) for text in kind.fn), **masks)
    return Draw(name, site or name, fn, Fn(kind.family, kind.prior, **masks), place)


def event_draw(kind: Kind, name: str, drive: str, sizes: tuple[int, ...], place: Place = NOWHERE, **masks: Any) -> Draw:
    """A site whose event has further dimensions; ``drive`` has them already."""
    ones = f"torch.ones({sizes}{' + (3,)' if 'unsqueeze' in kind.fn[0] else ''})"
    fn = Fn(kind.family, tuple(f"({text.format(drive)}) * {ones}" for text in kind.fn), sizes, **masks)
    prior = Fn(kind.family, tuple(f"{text} * {ones}" for text in kind.prior), sizes, **masks)
    return Draw(name, name, fn, prior, place)


def scalar(kind: Kind) -> Program:
    """One site, one cost."""
    x = kind.number.format("x")
    steps = (draw(kind, "x", "a"), Cost("c", f"({x} - 0.6) ** 2 + 0.5 * {x}"), _seen(x))
    return Program({"a": 0.3}, steps)


def plate(kind: Kind) -> Program:
    """A plate whose slices share nothing, a parameter for each."""
    x, inside = kind.number.format("x"), Place(("n",))
    steps = (
        draw(kind, "x", "a", inside),
        Cost("c", f"({x} - torch.tensor([0.6, -0.2])) ** 2", inside),
        _seen(x, inside),
    )
    return Program({"a": (0.3, -0.5)}, steps, (N,), by_slice=True)


def plate_to_global(kind: Kind) -> Program:
    """What is drawn in a plate meets outside of it."""
    x, inside = kind.number.format("x"), Place(("n",))
    steps = (draw(kind, "x", "a", inside), Cost("c", f"(total({x}) - 0.8) ** 2"), _seen(f"total({x})"))
    return Program({"a": (0.3, -0.5)}, steps, (N,))


def nested_plates(kind: Kind) -> Program:
    """A plate in a plate; for continuous sites one of them has one element, for quadrature goes over each."""
    x, inside = kind.number.format("x"), Place(("n", "m"))
    steps = (
        draw(kind, "x", "a + torch.tensor([[0.1]])" if kind.continuous else "a + torch.tensor([[0.0], [0.4]])", inside),
        Cost("c", f"({x} - torch.tensor([0.6, -0.2])) ** 2", inside),
        _seen(x, inside),
    )
    return Program({"a": (0.3, -0.5)}, steps, (N, replace(M, size=1) if kind.continuous else M), by_slice=True)


def event(kind: Kind) -> Program:
    """An event of two elements that one cost couples."""
    x = kind.number.format("x")
    steps = (event_draw(kind, "x", "a", (2,)), Cost("c", f"(({x}).sum(-1) - 0.8) ** 2"), _seen(f"({x}).sum(-1)"))
    return Program({"a": (0.3, -0.5)}, steps)


def event_of_two_dimensions(kind: Kind) -> Program:
    """An event of two rows."""
    x = kind.number.format("x")
    both = f"({x} * torch.tensor([[1.0], [-0.5]])).sum((-1, -2))"
    steps = (event_draw(kind, "x", "a", (2, 1)), Cost("c", f"({both} - 0.8) ** 2"), _seen(both))
    return Program({"a": ((0.3,), (-0.5,))}, steps)


def plate_of_events(kind: Kind) -> Program:
    """A vector in each slice of a plate; for continuous sites of one element, for quadrature goes over each."""
    x, inside = kind.number.format("x"), Place(("n",))
    size = 1 if kind.continuous else 2
    both = f"({x} * torch.tensor([1.0, -0.5])[:{size}]).sum(-1)"
    steps = (
        event_draw(kind, "x", f"a[:{size}] + torch.tensor([[0.0], [0.4]])", (size,), inside),
        Cost("c", f"({both} - torch.tensor([0.6, -0.2])) ** 2", inside),
        _seen(both, inside),
    )
    return Program({"a": (0.3, -0.5)}, steps, (N,), by_slice=True)


def masked(kind: Kind) -> Program:
    """A mask around site and cost, which leave out one slice."""
    x, inside = kind.number.format("x"), Place(("n",), mask=MASK)
    steps = (
        draw(kind, "x", "a", inside),
        Cost("c", f"({x} - torch.tensor([0.6, -0.2])) ** 2", inside),
        Cost("d", f"(total({x}) - 0.4) ** 2"),
        _seen(x, inside),
    )
    return Program({"a": (0.3, -0.5)}, steps, (N,))


def masked_elements(kind: Kind) -> Program:
    """A mask inside of an event; what is drawn there counts all the same."""
    x = kind.number.format("x")
    steps = (
        event_draw(kind, "x", "a", (2,), elements_mask=MASK),
        Cost("c", f"(({x}).sum(-1) - 0.8) ** 2"),
        _seen(f"({x}).sum(-1)"),
    )
    return Program({"a": (0.3, -0.5)}, steps)


def scaled(kind: Kind) -> Program:
    """Scales around a site and, others, around costs."""
    x = kind.number.format("x")
    steps = (
        draw(kind, "x", "a", Place(scale=0.6)),
        Cost("c", f"({x} - 0.6) ** 2", Place(scale=1.5)),
        Cost("d", f"0.5 * {x}"),
        _seen(x, Place(scale=0.7)),
    )
    return Program({"a": 0.3}, steps)


def subsampled(kind: Kind) -> Program:
    """Two of three elements of a plate, each with a parameter and a datum of its own."""
    x, inside = kind.number.format("x"), Place(("n",))
    steps = (
        draw(kind, "x", "a[n]", inside),
        Cost("c", f"({x} - torch.tensor([0.6, -0.2, 0.9])[n]) ** 2", inside),
        Observe("y", Fn("normal", (x, "torch.tensor(1.0)")), "torch.tensor([0.8, -0.1, 0.4])[n]", inside),
    )
    return Program({"a": (0.3, -0.5, 0.1)}, steps, (replace(N, size=3, subsample=2),), by_slice=True)


def sequential(kind: Kind) -> Program:
    """The same twice in a sequential plate."""
    x = kind.number.format("x")
    body = (
        draw(kind, "x", "a + 0.4 * t", site="x_{t}"),
        Cost("c_{t}", f"({x} - 0.6) ** 2 * (1 + t)"),
        Observe("y_{t}", Fn("normal", (x, "torch.tensor(1.0)")), "torch.tensor(0.5)"),
    )
    return Program({"a": 0.3}, (Loop("plate", "t", 2, body),))


def markov(kind: Kind) -> Program:
    """A state that a step acts on and that the next step sees."""
    x = kind.number.format("x")
    body = (
        draw(kind, "x", "a + 0.5 * s", site="x_{t}"),
        Let("s", f"0.6 * s + {x}"),
        Cost("c_{t}", "(s - 0.6) ** 2"),
        Observe("y_{t}", Fn("normal", ("s", "torch.tensor(1.0)")), "torch.tensor(0.5)"),
    )
    return Program({"a": 0.3}, (Let("s", "torch.tensor(0.2)"), Loop("markov", "t", 2, body)))


def chain(kind: Kind) -> Program:
    """Two sites, the second of which sees the first."""
    x, y = kind.number.format("x"), kind.number.format("y")
    steps = (
        draw(kind, "x", "a"),
        Cost("c", f"0.5 * {x}"),
        draw(kind, "y", f"b + 0.8 * {x}"),
        Cost("d", f"({x} + {y} - 0.6) ** 2"),
        _seen(y, name="z"),
    )
    return Program({"a": 0.3, "b": -0.2}, steps)


def beside_the_other_sort(kind: Kind) -> Program:
    """A discrete site and a continuous one, of which the first moves the second."""
    other = KINDS["bernoulli" if kind.continuous else "normal"]
    x, w = kind.number.format("x"), other.number.format("w")
    steps = (
        draw(kind, "x", "a"),
        draw(other, "w", f"b + 0.7 * {x}"),
        Cost("c", f"({x} + {w} - 0.6) ** 2"),
        _seen(f"{x} + {w}"),
    )
    return Program({"a": 0.3, "b": -0.2}, steps)


def behind_the_other_sort(kind: Kind) -> Program:
    """The same, the other site first."""
    other = KINDS["bernoulli" if kind.continuous else "normal"]
    x, w = kind.number.format("x"), other.number.format("w")
    steps = (
        draw(other, "w", "b"),
        draw(kind, "x", f"a + 0.7 * {w}"),
        Cost("c", f"({x} + {w} - 0.6) ** 2"),
        _seen(f"{x} + {w}"),
    )
    return Program({"a": 0.3, "b": -0.2}, steps)


def branch(kind: Kind) -> Program:
    """Which distribution serves a name, and what is paid, depends on a value drawn before."""
    x, coin = kind.number.format("x"), KINDS["bernoulli"]
    then = (draw(kind, "x", "a"), Cost("c", f"({x} - 0.6) ** 2 + 0.5"))
    otherwise = (draw(kind, "x", "torch.tensor(0.1)"), Cost("d", f"0.3 * {x}"))
    steps = (draw(coin, "w", "b"), Branch("w > 0.5", then, otherwise), _seen(x))
    return Program({"a": 0.3, "b": -0.2}, steps)


def branch_with_a_site(kind: Kind) -> Program:
    """A site, and a parameter, that only some runs have; the value of the site itself decides."""
    x, coin = kind.number.format("x"), KINDS["bernoulli"]
    then = (draw(coin, "w", "b"), Cost("c", f"w * ({x} - 0.4)"), Let("s", "w"))
    steps = (
        draw(kind, "x", "a"),
        Let("s", "torch.tensor(0.0)"),
        Branch(f"{x} > {0.0 if kind.continuous else 0.3}", then),
        Cost("d", f"0.5 * {x}"),
        _seen("s"),
    )
    return Program({"a": 0.3, "b": -0.2}, steps, jumps=kind.continuous)


def shared_parameter(kind: Kind) -> Program:
    """One parameter of two sites and of a cost."""
    x, y = kind.number.format("x"), kind.number.format("y")
    steps = (
        draw(kind, "x", "a"),
        draw(kind, "y", "0.4 + 0.6 * a"),
        Cost("c", f"({x} + 0.5 * {y} + a - 2.0) ** 2"),
        _seen(f"{x} * a + {y}"),
    )
    return Program({"a": 0.3}, steps)


def direct(kind: Kind) -> Program:
    """A cost, and a likelihood, that depend on a parameter themselves."""
    x = kind.number.format("x")
    return Program(
        {"a": 0.3, "b": 0.4}, (draw(kind, "x", "a"), Cost("c", f"b * {x} + (b - {x}) ** 2"), _seen(f"b * {x}"))
    )


def _seen(location: str, place: Place = NOWHERE, name: str = "seen") -> Observe:
    return Observe(name, Fn("normal", (location, "torch.tensor(1.0)")), "torch.tensor(0.5)", place)


SHAPES: dict[str, Callable[[Kind], Program]] = {
    shape.__name__: shape
    for shape in (
        scalar, plate, plate_to_global, nested_plates, event, event_of_two_dimensions, plate_of_events, masked,
        masked_elements, scaled, subsampled, sequential, markov, chain, beside_the_other_sort, behind_the_other_sort,
        branch, branch_with_a_site, shared_parameter, direct,
    )
}  # fmt: skip
