"""Phrasing: the things and values of one home in the words of one language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tumen.assistant.acts import Change
from tumen.assistant.replies.catalogue import ANY_DEVICE, catalogues
from tumen.assistant.resolution import MAX_SHOWN
from tumen.assistant.values import plain
from tumen.home import Home
from tumen.language import LANGUAGES

_PERCENT = ("brightness", "position", "percentage", "volume", "humidity")
_CELSIUS = ("temperature", "current_temperature")
_MAX_NAMED = 3  # up to here devices are listed by name, more are counted


class Phrasing:
    """Puts the things and values of a home into words.

    Args:
        home: the home that the replies are about.
        lang: the language of the reply; the first one where it is not known.
    """

    def __init__(self, home: Home, lang: str) -> None:
        self.home = home
        self.lang = lang if lang in catalogues() else LANGUAGES[0]
        self.catalogue = catalogues()[self.lang]

    def reply(self, key: str, **parts: Any) -> str:
        """Return a reply of the catalogue, its first letter in upper case.

        Args:
            key: which reply.
            parts: what is filled in; a language may leave parts out.
        """
        # a reply may start with the name of a device
        text = self.phrase(key, **parts)
        return text[0].upper() + text[1:]

    def phrase(self, key: str, **parts: Any) -> str:
        """Return a part of a reply; the arguments are those of `reply`."""
        template = self.catalogue.replies[key]
        return template.format(**parts)

    def sentences(self, texts: Sequence[str]) -> str:
        """Return several replies as one."""
        return self.catalogue.sentence_gap.join(texts)

    # -- names -----------------------------------------------------------------------------------

    def title(self, id_: str) -> str:
        """Return what an entity, area, floor or timer is called."""
        return self.home.title(id_, self.lang)

    def titles(self, ids: Sequence[str]) -> list[str]:
        """Return what several things are called."""
        return [self.title(id_) for id_ in ids]

    def listed(self, names: Sequence[str], joint: str = "and") -> str:
        """Return `a, b and c`.

        Args:
            names: what is listed.
            joint: key of the word before the last name.
        """
        if len(names) < 2:
            return "".join(names)
        *first, last = names
        return self._with_commas(first) + self.phrase(joint) + last

    def _with_commas(self, names: Sequence[str]) -> str:
        """Return names with the comma of the language between them."""
        return self.phrase("comma").join(names)

    def shortened(self, names: Sequence[str]) -> str:
        """Return the first names, and how many there are besides."""
        if len(names) <= MAX_SHOWN:
            return self.listed(names)
        shown = self._with_commas(names[:MAX_SHOWN])
        # some languages count the rest, some count all of them
        rest = len(names) - MAX_SHOWN
        return self.phrase("more", names=shown, count=rest, total=len(names))

    def names(self, ids: Sequence[str], place: str | None = None) -> str:
        """Return a few devices by name, more of them by number and place.

        Args:
            ids: the devices.
            place: the place that was named, if any.
        """
        if len(ids) <= _MAX_NAMED:
            return self.listed(self.titles(ids))
        counted = self.counted(ids)
        if place:
            return self.phrase("in", names=counted, place=self.place(place))
        return counted

    def counted(self, ids: Sequence[str]) -> str:
        """Return `4 lights`: by device class or domain where all share one."""
        count = len(ids)
        return self.phrase("count", count=count, noun=self.noun(self._shared(ids), count))

    def _shared(self, ids: Sequence[str]) -> str:
        """Return the device class or domain that all devices share and that has a noun."""
        entities = [self.home.entities[id_] for id_ in ids if id_ in self.home.entities]
        classes = {entity.device_class for entity in entities}
        domains = {entity.domain for entity in entities}
        # the class is narrower: blinds are covers
        for shared in (classes, domains):
            if len(shared) == 1:
                name = shared.pop()
                if name and name in self.catalogue.nouns:
                    return name
        return ANY_DEVICE

    def noun(self, name: str, count: int) -> str:
        """Return the noun of a domain or device class in the number of a count.

        Args:
            name: the domain or device class; empty for any device.
            count: how many there are.
        """
        nouns = self.catalogue.nouns
        forms = nouns.get(name) or nouns[ANY_DEVICE]
        return forms[0] if count == 1 else forms[-1]

    def place(self, place: str) -> str:
        """Return a place; several are joined by `+` or commas."""
        ids = place.replace("+", ",").split(",")
        return self.listed(self.titles(ids))

    def place_of_reading(self, id_: str) -> str:
        """Return the room that a climate device measures, or the name of a sensor."""
        entity = self.home.entities[id_]
        # a sensor may hang outside of the room it is named for
        if entity.area and entity.domain == "climate":
            return self.title(entity.area)
        return self.title(id_)

    def timer(self, id_: str, state: Mapping[str, Any]) -> str:
        """Return a timer by its name, or by its length.

        Args:
            id_: the timer.
            state: its fields; the home may not have it any more.
        """
        name = str(state.get("name") or "")
        if name:
            return self.phrase("timer", name=name)
        seconds = float(state.get("seconds", 0))
        return self.phrase("timer_plain", time=self.time(seconds))

    # -- values ----------------------------------------------------------------------------------

    def word(self, word: Any) -> str:
        """Return the word for a state or field; unknown ones stay as they are."""
        return self.catalogue.words.get(str(word), str(word))

    def state_word(self, id_: str) -> str:
        """Return the state of an entity as the home has it, such as `on`."""
        return str(self.home.state(id_).get("state"))

    def quantity(self, field: str, value: Any) -> str:
        """Return the value of a field with its unit: `80 %`, `21.5 °C`, `2700 K`, a colour.

        Args:
            field: a field of an entity.
            value: its value.
        """
        if field in _PERCENT:
            return f"{plain(value)} %"
        if field in _CELSIUS:
            return f"{plain(value)} °C"
        if field == "color_temperature":
            return f"{plain(value)} K"
        if field == "color":
            return self.catalogue.colors.get(str(value), str(value))
        if field == "muted":
            return self.word("muted" if value else "unmuted")
        if isinstance(value, (list, tuple)):
            items = [str(item) for item in value]
            return self._with_commas(items) or "0"
        return self.word(value)

    def changed_fields(self, change: Change) -> str:
        """Return what a change made of an entity, in a few words."""
        texts = []
        for name, (_, after) in change.fields().items():
            if after is not None:
                texts.append(self.quantity(name, after))
        return ", ".join(texts)

    def time(self, seconds: float) -> str:
        """Return a time span: `1 h 5 min`."""
        gap = self.catalogue.unit_gap
        minutes, whole_seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        amounts = (hours, minutes, whole_seconds)
        texts = []
        for amount, unit in zip(amounts, self.catalogue.units, strict=True):
            if amount:
                texts.append(f"{amount}{gap}{unit}")
        if not texts:
            texts.append(f"0{gap}{self.catalogue.units[-1]}")
        return gap.join(texts)
