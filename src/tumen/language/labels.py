"""The labels of an encoder: what it says of a sentence and of each of its words.

Of a sentence it says the language, the intent, and a value or none for each closed slot. Of a word
it says a tag: outside of all copied slots, or at the beginning or inside of a run of one (BIO,
Ramshaw and Marcus 1995). The order of the outputs follows from the ontology.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

OUTSIDE = 0  # tag of a word that no slot copies


@dataclass(frozen=True)
class Labels:
    """The outputs of an encoder for one ontology; the fields are those of `Ontology`.

    Sentence outputs, in order: languages, intents, and for each closed slot none and its values.
    Tags: outside, then for each copied slot beginning and inside.
    """

    languages: tuple[str, ...]
    intents: Mapping[str, tuple[str, ...]]
    closed: Mapping[str, tuple[str, ...]]
    copied: tuple[str, ...]
    spoken: tuple[str, ...]
    several: tuple[str, ...]

    @cached_property
    def choices(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """First sentence output of each closed slot, which means none, and the slot's values."""
        found = {}
        start = len(self.languages) + len(self.intents)
        for slot, values in self.closed.items():
            found[slot] = (start, values)
            start += 1 + len(values)
        return found

    @cached_property
    def tags(self) -> dict[str, int]:
        """The tag that begins a run of each copied slot; the next one is inside of it."""
        return {slot: 1 + 2 * number for number, slot in enumerate(self.copied)}

    @property
    def counts(self) -> tuple[int, int, int]:
        """Outputs for a sentence, tags for a word, intents."""
        sentence = len(self.languages) + len(self.intents)
        sentence += sum(1 + len(values) for values in self.closed.values())
        return sentence, 1 + 2 * len(self.tags), len(self.intents)

    def tree(self) -> dict[str, Any]:
        """Return everything a runner needs to read the outputs, as JSON can hold it."""
        return {
            "languages": list(self.languages),
            "intents": {name: list(slots) for name, slots in self.intents.items()},
            "choices": {
                slot: [start, list(values)] for slot, (start, values) in self.choices.items()
            },
            "tags": self.tags,
            "spoken": list(self.spoken),
            "several": list(self.several),
        }
