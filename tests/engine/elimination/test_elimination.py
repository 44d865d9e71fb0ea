"""Contractions in logarithms: sums by hand, extreme numbers, lanes, products of matrices."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from pyro.ops import packed
from torch import Tensor

from ppgrad.engine.elimination import log_einsum
from ppgrad.engine.elimination.elimination import Factor, connected, eliminate

EQUATIONS = ("ab,bc->ac", "ab,b->a", "ab,ab->", "a,b->ab", "ab->b", "ab->ba", "nab,nb->na", "nab,b->na", "ab,bc,cd->ad")


def operands(equation: str, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"a": 2, "b": 3, "c": 4, "d": 2, "n": 5}
    return [
        torch.randn([sizes[dim] for dim in own], generator=generator, dtype=torch.double).requires_grad_()
        for own in equation.split("->")[0].split(",")
    ]


def by_hand(equation: str, *terms: Tensor) -> Tensor:
    return torch.einsum(equation, *(term.exp() for term in terms)).log()


@pytest.mark.parametrize("most", [0, log_einsum.MOST_AT_ONCE])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_sums_of_products(equation: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_einsum, "MOST_AT_ONCE", most)
    terms = operands(equation)
    found, wanted = log_einsum.einsum(equation, *terms), by_hand(equation, *terms)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad((weights * found).sum(), terms),
        torch.autograd.grad((weights * wanted).sum(), terms),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_in_lanes(equation: str) -> None:
    lanes = [operands(equation, seed) for seed in range(3)]
    stacked = [torch.stack([lane[i].detach() for lane in lanes]) for i in range(len(lanes[0]))]
    found = torch.vmap(lambda *terms: log_einsum.einsum(equation, *terms))(*stacked)
    torch.testing.assert_close(found, torch.stack([by_hand(equation, *lane).detach() for lane in lanes]))


def test_terms_too_small_for_a_floating_point_number_still_count() -> None:
    one, other = torch.tensor([0.0, -200.0]), torch.tensor([-200.0, 0.0])
    found = log_einsum.einsum("a,a->", one, other)
    torch.testing.assert_close(found, torch.tensor(-200.0 + math.log(2.0)))


@pytest.mark.parametrize("most", [0, log_einsum.MOST_AT_ONCE])
def test_what_is_impossible_has_no_gradient(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_einsum, "MOST_AT_ONCE", most)
    chain = torch.tensor([[-math.inf, 0.0], [-math.inf, -math.inf]], requires_grad=True)
    last = torch.tensor([-1.0, -2.0], requires_grad=True)
    found = log_einsum.einsum("ab,b->a", chain, last)
    (gradient, of_last) = torch.autograd.grad(found[0], [chain, last])
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(of_last, torch.tensor([0.0, 1.0]))


def factor(density: Tensor, dims: str, plates: str = "") -> Factor:
    return Factor(packed.pack(density, dict(zip(range(-len(dims), 0), dims, strict=True))), frozenset(plates))


def test_a_sum_that_is_zero_is_minus_infinity() -> None:
    density = torch.tensor([[-math.inf, 0.0], [0.0, -math.inf]], requires_grad=True)
    factors = [
        factor(density, "ab"),
        factor(torch.tensor([0.0, -math.inf]), "a"),
        factor(torch.tensor([0.0, -math.inf]), "b"),
    ]
    found = eliminate(factors, (0, 1, 2), frozenset("ab")).density
    assert found.item() == -math.inf
    assert torch.autograd.grad(found, [density])[0].isfinite().all()


def test_slices_of_a_plate_are_multiplied_under_what_is_outside() -> None:
    outer, inner, data = torch.randn(2), torch.randn(5, 3, 2), torch.randn(5, 3)
    factors = [factor(outer, "z"), factor(inner, "nkz", "n"), factor(data, "nk", "n")]
    places = connected(factors, frozenset("zk"))
    assert places == [(0, 1, 2)]
    found = eliminate(factors, *places, frozenset("zk"))
    wanted = (outer + (inner + data.unsqueeze(-1)).logsumexp(1).sum(0)).logsumexp(0)
    torch.testing.assert_close(found.density, wanted)
    assert found.plates == frozenset()


def test_factors_that_share_no_variable_are_apart() -> None:
    shapes = ("a", "b", "c", "bd", "cd", "e", "n")
    factors = [factor(torch.zeros([2] * len(dims)), dims) for dims in shapes]
    assert connected(factors, frozenset("abcde")) == [(0,), (1, 2, 3, 4), (5,), (6,)]


def test_a_chain_is_one_sum() -> None:
    steps = [torch.randn(3, 3) for _ in range(6)]
    names = "abcdefg"
    factors = [factor(step, names[i : i + 2]) for i, step in enumerate(steps)]
    (places,) = connected(factors, frozenset(names))
    wanted = torch.stack(
        [
            torch.stack([steps[i][path[i], path[i + 1]] for i in range(6)]).sum()
            for path in itertools.product(range(3), repeat=7)
        ]
    ).logsumexp(0)
    torch.testing.assert_close(eliminate(factors, places, frozenset(names)).density, wanted)
