"""Values that a program reads where it must not: a context that knows the draw, a model that looks past its sites."""

from __future__ import annotations

import warnings

from ppgrad.core import InvalidProgram, ReadPastSites, Unsupported
from ppgrad.engine.dependence.dependence import Dependence, Draws
from ppgrad.engine.running.followed import Followed


def check_contexts(followed: Followed) -> None:
    """Raise where a site's context was computed from the site's own draw, or from a draw that it reaches.

    A baseline of it would take away a part of what it is to leave alone: b must not depend on the draw.

    Raises:
        InvalidProgram: names the site, and the draws by which its own gets there.
    """
    dependence = followed.dependence
    for place, site in enumerate(followed.sites):
        is_read = site.estimator is not None and not site.estimator.facts.reparameterized
        context = followed.contexts.get(site.name, 0)
        if is_read and dependence.reaching(context) >> place & 1:
            path = " → ".join(f"'{name}'" for name in _path(dependence, place, context))
            raise InvalidProgram(
                f"Site '{site.name}': its context is computed from its own draw ({path} → context), and a baseline "
                "that depends on the draw makes the gradient biased. Give a context from before the draw: an object of "
                "its own, such as dict(state) or list(state), where the program goes on to change it."
            )


def _path(dependence: Dependence, start: int, end: Draws) -> list[str]:
    """The names of the draws from ``start`` to one of ``end``."""
    names = []
    while not end >> start & 1:
        later = next(i for i in reversed(dependence.draws) if end >> i & 1 and dependence.reaching(1 << i) >> start & 1)
        names.append(dependence.sites[later].name)
        end = dependence.values[later]
    return [dependence.sites[start].name, *reversed(names)]


def check_reads(followed: Followed, strict: bool) -> None:
    """Warn where the model reads a draw of the guide that none of its sites has handed on.

    The gradient is right, for such a draw is charged with what was computed from it; the model alone is another one.

    Raises:
        Unsupported: under ``strict``.
    """
    if not followed.past_sites:
        return
    site, draws = next(iter(followed.past_sites.items()))
    more = f" (and {len(followed.past_sites) - 1} more)" if len(followed.past_sites) > 1 else ""
    message = (
        f"Site '{site}'{more} of the model is computed from the guide's draw '{draws[0]}', and not through a site of "
        "the model: a variable that both share hands it over. The gradient counts it, and without this guide the model "
        f"is another one. Write pyro.sample('{draws[0]}', …) in the model, before '{site}', and read the value there."
    )
    if strict:
        raise Unsupported(message)
    warnings.warn(message, ReadPastSites, stacklevel=2)
