"""Which estimator serves which site."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppgrad.baselines import Constant, LeaveOneOut, MovingAverage
from ppgrad.core import Estimator, InvalidAssignment, Learns, SiteInfo, Unsupported
from ppgrad.core.distributions import is_learnable, requires_gradient
from ppgrad.core.generators import undisturbed
from ppgrad.engine.assignment.pyro_keys import check_keys, with_pyro_baseline
from ppgrad.estimators import Enumerate, Pathwise, ScoreFunction, all_estimators

Choice = Mapping[str, Estimator] | Callable[[Mapping[str, Any]], Estimator | None] | None


class Assignment:
    """The estimators of an objective, and of the sites that it has met.

    The choice at a site is, in this order: ``sites``; the site's ``infer={"gradient": …}``; that of the model's site
    of its name, where a guide draws it; the objective's default; ``infer={"enumerate": …}``; pathwise where the
    distribution can and the program lets a gradient through the value, the score function otherwise. A site whose
    density depends on no parameter may be drawn by any of them, and is drawn plainly if the choice cannot serve it.

    Args:
        objective: the objective's name, for messages.
        default: the objective's own estimator, or None.
        sites: globs to estimators, or a function from the site's message to an estimator or None.
        reads_baselines: whether ``infer["baseline"]`` of a site is to be read.
    """

    def __init__(self, objective: str, default: Estimator | None, sites: Choice, reads_baselines: bool = True):
        self._objective = objective
        self._default = None if default is None else checked(default, f"{objective}(…)")
        if sites is not None and not callable(sites) and not isinstance(sites, Mapping):
            raise InvalidAssignment(f"sites={sites!r}: write {{glob: estimator}}, or a function of the site's message.")
        if sites is not None and not callable(sites):
            for glob in sites:
                if not isinstance(glob, str):
                    raise InvalidAssignment(f"sites={{{glob!r}: …}}: a site is named by text. Write {{'{glob}': …}}.")
            sites = {glob: checked(choice, f"sites={{{glob!r}: …}}") for glob, choice in sites.items()}
        self._sites = sites
        self._reads_baselines = reads_baselines
        self._chosen: dict[str, dict[tuple[Any, ...], Estimator | None]] = {}
        self._from_model: dict[str, Estimator] = {}
        self._relaxes = False

    def estimator_of(self, message: Mapping[str, Any], info: Callable[[], SiteInfo]) -> Estimator | None:
        """The estimator of a site, or None where nothing has to be estimated.

        Args:
            message: the site's.
            info: what an estimator may know of the site; asked for when the site is met for the first time.

        Raises:
            Unsupported: the chosen estimator cannot serve the site.
            InvalidAssignment: two globs disagree, or a baseline would be read by nothing.
        """
        known = self._chosen.setdefault(message["name"], {})
        key = _look(message["fn"])
        if key not in known and not torch.is_grad_enabled() and (*key[:-1], True) in known:
            key = (*key[:-1], True)
        if key not in known:
            as_noise = (*key[:-1], False) in known
            with undisturbed():  # a site may be met for the first time in the midst of a run
                known[key] = chosen = self._resolve(message, info(), as_noise)
            self._relaxes = self._relaxes or (chosen is not None and chosen.needs.relaxed)
        return known[key]

    def chosen(self, message: Mapping[str, Any]) -> Estimator | None:
        """What ``sites`` or else the default says of a site, without asking whether it can serve."""
        chosen = self._from_sites(message["name"], message)
        return self._default if chosen is None else chosen

    def is_chosen(self, message: Mapping[str, Any]) -> bool:
        """Whether the site itself, or ``sites``, says how it is to be served."""
        infer = message["infer"]
        asked = any(infer.get(key) is not None for key in ("gradient", "enumerate"))
        return asked or message["name"] in self._from_model or self._from_sites(message["name"], message) is not None

    def _resolve(self, message: Mapping[str, Any], info: SiteInfo, as_noise: bool) -> Estimator | None:
        name, infer = info.name, message["infer"]
        check_keys(name, infer)
        chosen = self._from_sites(name, message)
        if chosen is None and infer.get("gradient") is not None:
            chosen = checked(infer["gradient"], f"Site '{name}': infer['gradient']")
        if chosen is None:
            chosen = next((choice for site, choice in self._from_model.items() if matches(escape(site), message)), None)
        explicit = chosen is not None
        if chosen is None:
            chosen = self._default
        if chosen is None and infer.get("enumerate") is not None:
            chosen = Enumerate()
        if chosen is None:
            chosen = Pathwise() if Pathwise().refusal(info) is None else ScoreFunction()
        if self._reads_baselines:
            chosen = with_pyro_baseline(chosen, name, infer)
        reason = chosen.refusal(info)
        has_surrogate = type(chosen).surrogate is not Estimator.surrogate
        if not explicit and (reason is not None or has_surrogate):
            # Noise; unless a value upstream is relaxed, whose gradient its density then passes on.
            passes_on = self._relaxes and ScoreFunction().refusal(info) is None
            if not is_learnable(info.fn):
                return ScoreFunction() if passes_on else None
            if passes_on and as_noise:
                return ScoreFunction()
        if reason is None:
            return chosen
        raise Unsupported(_refusal(chosen, info, reason))

    def heed_model(self, guide: Mapping[str, Mapping[str, Any]], asked: Mapping[str, Any]) -> bool:
        """Take over what the model's sites say of draws of the guide; whether that says something new.

        Args:
            guide: the nodes of the guide's trace, by name.
            asked: ``infer["gradient"]`` of the model's sites that have one.

        Raises:
            InvalidAssignment: the guide draws such a site together with others, so that nothing reads the choice.
        """
        drawn = [node for name, node in guide.items() if name in self._chosen]
        found = {}
        for name, choice in asked.items():
            if name not in guide or not drawn:
                continue
            if not any(matches(escape(name), one) for one in drawn):
                there = drawn[0]["name"]
                raise InvalidAssignment(
                    f"Site '{name}': infer['gradient'] of the model's site is read by nothing: the guide draws "
                    f"'{there}' in its place. Choose for that one: sites={{'{there}': {choice!r}}}."
                )
            found[name] = checked(choice, f"Site '{name}': infer['gradient']")
        if found == self._from_model:
            return False
        self._from_model = found
        self._chosen.clear()
        self._relaxes = False
        return True

    def _from_sites(self, name: str, message: Mapping[str, Any]) -> Estimator | None:
        if self._sites is None:
            return None
        if callable(self._sites):
            chosen = self._sites(message)
            return None if chosen is None else checked(chosen, f"sites(…) at site '{name}'")
        matching = {glob: choice for glob, choice in self._sites.items() if matches(glob, message)}
        if len(set(map(repr, matching.values()))) > 1:
            globs = " and ".join(repr(glob) for glob in matching)
            raise InvalidAssignment(
                f"Site '{name}' matches the globs {globs} of sites=, which name different estimators. "
                "Make the globs disjoint."
            )
        return next(iter(matching.values()), None)

    @property
    def globs(self) -> Collection[str]:
        """The globs of ``sites``."""
        return () if self._sites is None or callable(self._sites) else self._sites.keys()

    def check_globs(self, messages: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise if a glob of ``sites`` matched none of the random sites of the program."""
        for glob in self.unmatched(messages):
            raise InvalidAssignment(unmatched(glob, "sites=", messages))

    def unmatched(self, messages: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """The globs of ``sites`` that match none of the messages of random sites."""
        return [glob for glob in self.globs if not any(matches(glob, message) for message in messages.values())]

    def served(self) -> list[tuple[str, Estimator]]:
        """The sites met so far that an estimator serves."""
        return [
            (name, member) for name, known in self._chosen.items() for member in known.values() if member is not None
        ]

    def used(self) -> list[Estimator]:
        """The estimators that serve the sites met so far, each once."""
        found = {repr(estimator): estimator for _, estimator in self.served()}
        return list(found.values())

    def relaxed_sites(self, changed: str | None = None) -> list[tuple[str, Estimator]]:
        """The sites met so far whose values may lie between those of their distribution; ``changed`` does."""
        return [
            (name, member)
            for name, member in self.served()
            if member is not None and (member.needs.outside_support or name == changed)
        ]

    def modules(self) -> list[torch.nn.Module]:
        """The modules that the estimators train by losses of their own."""
        mapped = [] if self._sites is None or callable(self._sites) else [*self._sites.values()]
        found: dict[int, torch.nn.Module] = {}
        for member in (self._default, *mapped, *(member for _, member in self.served())):
            if isinstance(member, Learns):
                found |= {id(module): module for module in member.modules()}
        return list(found.values())


def _look(fn: TorchDistribution) -> tuple[Any, ...]:
    """What of a distribution decides on who can serve it: its family and shape; at last, whether it can be learned."""
    inner: Any = fn
    kinds: tuple[Any, ...] = (type(fn),)
    while "base_dist" in inner.__dict__:
        inner = inner.base_dist
        kinds = (*kinds, type(inner))
    learns = False
    for value in inner.__dict__.values():
        if isinstance(value, Tensor) and (value.requires_grad or requires_gradient(value)):
            learns = True
            break
    return (*kinds, fn._batch_shape, fn._event_shape, learns)


def unmatched(glob: str, where: str, names: Collection[str]) -> str:
    """What to say of a glob that matches none of the random sites ``names``."""
    there = ", ".join(sorted(set(names))) or "none"
    return f"The glob {glob!r} of {where} matches no random site. Write one that does; the random sites: {there}."


def checked(choice: Any, where: str) -> Estimator:
    """``choice`` if it is an estimator's instance, else an error that says what to write."""
    if isinstance(choice, Estimator):
        return choice
    if inspect.isclass(choice) and issubclass(choice, Estimator):
        raise InvalidAssignment(
            f"{where} was given the class {choice.__name__}. Write the instance {choice.__name__}(), or "
            "another such as ScoreFunction(), Pathwise() or Enumerate()."
        )
    raise InvalidAssignment(
        f"{where} takes an estimator, not {choice!r}. "
        "Write ScoreFunction(), Pathwise(), Enumerate() or another of ppgrad.all_estimators()."
    )


def matches(glob: str, message: Mapping[str, Any]) -> bool:
    """Whether a glob names a site; an autoguide's ``x_unconstrained`` also answers to ``x``."""
    name = message["name"]
    names = [name]
    if message["infer"].get("is_auxiliary") and name.endswith("_unconstrained"):
        names.append(name.removesuffix("_unconstrained"))
    return any(fnmatchcase(candidate, glob) for candidate in names)


def escape(name: str) -> str:
    """The glob that matches a name alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _refusal(chosen: Estimator, info: SiteInfo, reason: str) -> str:
    what = f"{type(chosen).__name__} cannot serve site '{info.name}': {reason}."
    choices = alternatives(info)
    if not choices:
        return what + " No other estimator can serve it; change the distribution."
    listed = ", ".join(choices[:-1]) + " or " + choices[-1] if len(choices) > 1 else choices[0]
    return what + f"\nChoose {listed} for it: sites={{'{info.name}': {choices[0]}}}."


def alternatives(info: SiteInfo, count: int = 3) -> list[str]:
    """Up to ``count`` estimators that can serve a site, as a person would write them."""
    candidates: list[Estimator] = [ScoreFunction(), Pathwise(), Enumerate()]
    examples = [example for member in all_estimators() for example in member.examples()]
    candidates += sorted(examples, key=lambda example: (example.account.biased, not example.needs.element_by_element))
    plates = sorted(plate.name for plate in info.plates if plate.size > 1)
    candidates += [ScoreFunction(LeaveOneOut(over=plate)) for plate in plates]
    candidates += [ScoreFunction(LeaveOneOut()), ScoreFunction(MovingAverage()), ScoreFunction(Constant(0.0))]
    written: list[str] = []
    for candidate in candidates:
        text = _short(candidate)
        if text not in written and candidate.refusal(info) is None:
            written.append(text)
    return written[:count]


def _short(estimator: Estimator) -> str:
    return repr(estimator).replace("baseline=", "")
