"""Programs drawn at random, of all the parts that there are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ppgrad.testing.programs.data import Branch, Cost, Draw, Fn, Let, Loop, Observe, Place, Plate, Program, Step, walk
from ppgrad.testing.programs.shapes import KINDS, MASK, Kind, draw, event_draw

_PLATES: dict[tuple[str, ...], tuple[Plate, ...]] = {
    (): (),
    ("n",): (Plate("n", 2),),
    ("n", "m"): (Plate("n", 2), Plate("m", 2, dim=-2)),
    ("s",): (Plate("s", 3, subsample=2),),
}
_MASKS = {(): "torch.tensor(False)", ("n",): MASK, ("n", "m"): MASK, ("s",): "(s > 0)"}
_KINDS = ("bernoulli", "bernoulli", "categorical", "one-hot", "normal", "normal", "gamma", "poisson")


@dataclass(frozen=True)
class _Known:
    """A value that later steps may look at: a number in its plates."""

    text: str
    plates: tuple[str, ...]


class _Writer:
    """Writes the steps of one program."""

    def __init__(self, source: random.Random):
        self._source = source
        self._plates = source.choice([(), ("n",), ("n",), ("n", "m"), ("s",), ("s",)])
        self._known: list[_Known] = []
        self._count = 0
        self.parameters: dict[str, float | tuple[float, ...]] = {}
        self.jumps = False
        self.apart = bool(self._plates)

    def program(self) -> Program:
        """One or two groups of steps, and what is paid, or seen, in the end."""
        steps: list[Step] = []
        for _ in range(self._source.choice((1, 1, 2))):
            steps += self._source.choice((self._plain, self._plain, self._plain, self._loop, self._branch))()
        steps += self._paid(self._place(inside=self.apart), True)
        plates = _PLATES[self._plates]
        return Program(self.parameters, tuple(steps), plates, self.jumps, by_slice=self.apart)

    def _plain(self) -> list[Step]:
        place = self._place()
        step = self._draw(place)
        steps: list[Step] = [step]
        if self._source.random() < 0.6:
            steps += self._paid(place if self._source.random() < 0.7 else self._place())
        return steps

    def _loop(self) -> list[Step]:
        self.apart = False
        kind = self._source.choice(("plate", "markov"))
        variable, state = f"t{self._count}", f"s{self._count}"
        start, known = self._text(()), list(self._known)
        if kind == "markov":
            self._known.append(_Known(state, ()))
        step = self._draw(Place(), f"_{{{variable}}}")
        body: list[Step] = [step, *self._paid(Place(), suffix=f"_{{{variable}}}")]
        last = self._known[-1].text
        self._known = list(known)
        if kind == "plate":
            return [Loop("plate", variable, 2, tuple(body))]
        body.insert(1, Let(state, f"0.5 * {state} + {last}"))
        self._known.append(_Known(state, ()))
        return [Let(state, start), Loop("markov", variable, 2, tuple(body))]

    def _branch(self) -> list[Step]:
        self.apart = False
        coin = self._draw(Place(), kind="bernoulli", event=())
        known = list(self._known)
        then = [self._draw(Place()), *self._paid(Place())]
        self._known = list(known)
        otherwise = self._paid(Place())
        if self._source.random() < 0.5:  # the same name, another distribution
            first = then[0]
            assert isinstance(first, Draw)
            same = self._draw(Place())
            otherwise = [replace(same, variable=first.variable, site=first.site), *otherwise]
            self._known = list(known)
        return [coin, Branch(f"{coin.variable} > 0.5", tuple(then), tuple(otherwise))]

    def _place(self, inside: bool | None = None) -> Place:
        inside = self._source.random() < 0.7 if inside is None else inside
        plates = self._plates if inside else ()
        self.apart = self.apart and bool(plates)
        scale = self._source.choice((1.0, 1.0, 1.0, 0.6, 1.7))
        masked = self._source.random() < 0.15
        return Place(plates, scale, _MASKS[plates] if masked else "")

    def _draw(self, place: Place, suffix: str = "", kind: str = "", event: tuple[int, ...] | None = None) -> Draw:
        chosen: Kind = KINDS[kind or self._source.choice(_KINDS)]
        name = f"x{self._count}"
        self._count += 1
        if event is None:
            event = self._source.choice(((), (), (), (2,), (2, 1))) if len(place.plates) < 2 else ()
        masks: dict[str, str] = {}
        if self._source.random() < 0.3 and event == (2,):
            masks["elements_mask"] = MASK
        elif self._source.random() < 0.1:
            masks["mask"] = _MASKS[place.plates]
        drive = f"{self._parameter(event, place)} + {self._text(place.plates)}"
        number = chosen.number.format(name)
        if event:
            wider = ", ".join(["...", *["None"] * len(event)])
            drive = f"{self._parameter(event, place)} + {self._text(place.plates)}[{wider}]"
            number = f"({number} * {'torch.tensor([1.0, -0.7])' if event == (2,) else 'torch.tensor([[1.0], [-0.7]])'})"
            number = f"{number}.sum({-1 if len(event) == 1 else (-1, -2)})"
            step = event_draw(chosen, name, drive, event, place, **masks)
            step = replace(step, site=name + suffix)
        else:
            step = draw(chosen, name, drive, place, name + suffix, **masks)
        if self._source.random() < 0.3 and self._known and not event:
            prior = tuple(text.format(f"0.2 + 0.4 * {self._text(place.plates)}") for text in chosen.fn)
            step = replace(step, prior=replace(step.prior, arguments=prior))
        self._known.append(_Known(number, place.plates))
        return step

    def _parameter(self, event: tuple[int, ...], place: Place) -> str:
        if self.parameters and self._source.random() < 0.2:
            return f"0.7 * {self._source.choice(list(self.parameters))}.sum()"
        name = f"a{len(self.parameters)}"
        sizes: dict[tuple[str, ...], int] = {("n",): 2, ("s",): 3}
        size = sizes.get(place.plates) if not event else event[0] if len(event) == 1 else None
        if size is None or self._source.random() < 0.4:
            self.parameters[name] = self._number(0.5)
            return name
        self.parameters[name] = tuple(self._number(0.5) for _ in range(size))
        return f"{name}[s]" if place.plates == ("s",) and not event else name

    def _text(self, plates: tuple[str, ...]) -> str:
        """A number in plates, of what is known, or a constant of their shape."""
        terms = [self._constant(plates)]
        for known in self._known[-3:]:
            if self._source.random() < 0.7:
                crosses = known.plates and known.plates != plates
                self.apart = self.apart and known.plates == plates
                text = f"total({known.text})" if crosses else known.text
                terms.append(f"{self._number(0.5)} * {text}")
        return "(" + " + ".join(terms) + ")"

    def _constant(self, plates: tuple[str, ...]) -> str:
        first = self._number(0.4)
        if plates == ():
            return f"torch.tensor({first})"
        if plates == ("s",):
            return f"torch.tensor([{first}, {self._number(0.4)}, {self._number(0.4)}])[s]"
        across = f"torch.tensor([{first}, {self._number(0.4)}])"
        return across if plates == ("n",) else f"({across} + torch.tensor([[0.0], [{self._number(0.4)}]]))"

    def _paid(self, place: Place, last: bool = False, suffix: str = "") -> list[Step]:
        """A cost, or what is seen under a bound, or both."""
        self._count += 1
        text = self._text(place.plates)
        latest = [known for known in self._known[-2:] if known.plates == place.plates or not known.plates]
        if latest:
            text = f"({text} + {latest[-1].text})"
        elif self._known:
            self.apart = False
            text = f"({text} + total({self._known[-1].text}))"
        direct = [name for name, value in self.parameters.items() if isinstance(value, float)]
        if direct and self._source.random() < 0.2:
            text = f"({text} * (1 + {self._source.choice(direct)}))"
        steps: list[Step] = []
        if last or self._source.random() < 0.8:
            cost = self._source.choice(("{0} ** 2", "0.5 * {0}", "torch.sin({0})", "0.3 * {0} ** 2 + {0}"))
            steps.append(Cost(f"c{self._count}{suffix}", cost.format(text), place))
        if last or self._source.random() < 0.3:
            fn = Fn("normal", (text, "torch.tensor(1.3)"))
            steps.append(Observe(f"y{self._count}{suffix}", fn, "torch.tensor(0.4)", place))
        return steps

    def _number(self, size: float) -> float:
        return round(self._source.gauss(0, size), 2)


def drawn(source: random.Random) -> Program:
    """A program of a few sites."""
    return _Writer(source).program()


def parts(program: Program) -> Sequence[str]:
    """What sorts of things a program has, to see that all of them are drawn."""
    found = [type(step).__name__ for step in walk(program.steps)]
    for step in walk(program.steps):
        if isinstance(step, Draw):
            found += [step.fn.family, f"event of {len(step.fn.event)}", f"plates: {', '.join(step.place.plates)}"]
            found += ["mask"] * bool(step.fn.mask) + ["mask of elements"] * bool(step.fn.elements_mask)
        if isinstance(step, Draw | Cost | Observe):
            found += ["scale"] * (step.place.scale != 1) + ["mask around"] * bool(step.place.mask)
        if isinstance(step, Loop):
            found.append(step.kind)
    return found + ["slices"] * program.by_slice
