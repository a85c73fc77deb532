"""Recent: what was spoken of in the turns before, for `it`, `the other one` and `the same`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tumen.assistant.resolution import Resolution, Resolved
from tumen.home import Entity, Home, NamedPlace


@dataclass(frozen=True)
class Recent:
    """What a conversation was about.

    Attributes:
        targets: the ids that `it` stands for.
        acts: what was done last, in its order.
        chain: all that was spoken of in turns that went on from one another.
        offered: the ids of the question that was answered last.
        fresh: whether that was a moment ago.
        same_sentence: whether that was said in the same sentence.
    """

    targets: tuple[str, ...] = ()
    acts: tuple[Resolved, ...] = ()
    chain: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    fresh: bool = False
    same_sentence: bool = False

    def after(self, resolutions: Sequence[Resolution]) -> Recent:
        """Return what is spoken of after some parts of a sentence."""
        acts = tuple(each for each in resolutions if isinstance(each, Resolved) and each.targets)
        if not acts:
            return self
        targets = tuple(dict.fromkeys(id_ for act in acts for id_ in act.targets))
        return Recent(targets, acts, targets, (), fresh=True, same_sentence=True)


def several_of(recent: Recent, count: int) -> tuple[str, ...]:
    """Return what `them` stands for, or `both` where a number was said; nothing if it is unclear.

    Args:
        recent: what was spoken of before.
        count: how many things there must be; 0 if nobody said.
    """
    for ids in (recent.targets, recent.chain):
        if len(ids) == count or (not count and len(ids) > 1):
            return ids
    return () if count else recent.targets


NOTHING = Recent()
"""Nothing was spoken of before."""


def others_of(recent: Recent, home: Home) -> tuple[str, ...]:
    """Return what `the other one` may be; several where it is not clear.

    Those of a question come first, then those of the same sort in the same room that share most
    of their name.
    """
    last = [home.entities[id_] for id_ in recent.targets if id_ in home.entities]
    if not last:
        return ()
    offered = tuple(id_ for id_ in recent.offered if id_ not in recent.targets)
    if offered and set(recent.targets) <= set(recent.offered):
        return offered
    beside = [
        entity
        for entity in home.entities.values()
        if entity.id not in recent.targets and any(_is_like(entity, one) for one in last)
    ]
    if not beside:
        return ()
    shared = {entity.id: _shared_words(entity, last, home) for entity in beside}
    most = max(shared.values())
    return tuple(id_ for id_, count in shared.items() if count == most)


def _is_like(entity: Entity, other: Entity) -> bool:
    """Whether two things are of one sort and in one room."""
    return (entity.domain, entity.device_class, entity.area) == (
        other.domain,
        other.device_class,
        other.area,
    )


def _shared_words(entity: Entity, last: Sequence[Entity], home: Home) -> int:
    """Return how many words of its names an entity shares with one of some others."""
    index = home.index
    numbers = {known.id: number for number, known in enumerate(index.entities)}
    own = index.core_words(numbers[entity.id])
    return max(len(own & index.core_words(numbers[one.id])) for one in last)


def like_last_in(recent: Recent, home: Home, place: NamedPlace) -> tuple[str, ...]:
    """Return the things of a place that are of the sort that was spoken of last."""
    last = [home.entities[id_] for id_ in recent.targets if id_ in home.entities]
    sorts = {(entity.domain, entity.device_class) for entity in last}
    inside = [entity for entity in home.entities.values() if entity.area in place.areas]
    same = tuple(e.id for e in inside if (e.domain, e.device_class) in sorts)
    # a blind there, a curtain here
    return same or tuple(e.id for e in inside if e.domain in {domain for domain, _ in sorts})
