"""What a model may understand: intents, their slots and the values of closed slots (a dialogue ontology, as in task-oriented NLU).

An ontology is data: a source of sentences has one, several are joined, and the corpus, the tokeniser and the bundle carry it as
`ontology.json`. From it follow the structure tokens a tokeniser has, the grammar a runner keeps to, and what `parse` accepts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field, ValidationError, field_validator, model_validator

from tumen.core import untrusted
from tumen.core.errors import ArtifactError
from tumen.core.shape import Frozen
from tumen.language.labels import Labels

FILE = "ontology.json"
MOST_BYTES = 1 << 18  # a grammar is made of it for each sentence
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
NONE = "none"  # the intent of a sentence that asks for nothing we do
JOINT = ";"  # between the runs of a slot that holds several


class Ontology(Frozen):
    """Intents and slots.

    Attributes:
        languages: values of the first field, `lang`.
        intents: slots of each intent, in the order in which they are written.
        spoken: intents whose slots are written as they come in the sentence instead; each at most once.
        closed: slots with a fixed set of values; every other slot holds words copied from the sentence.
        several: copied slots that may hold more than one run of words, joined by `;`.
        groups: rows of a scorecard: intents by scenario.
        acts: intents that change something in the world.
    """

    languages: tuple[str, ...] = Field(min_length=1)
    intents: dict[str, tuple[str, ...]] = Field(min_length=1)
    spoken: tuple[str, ...] = ()
    closed: dict[str, tuple[str, ...]] = Field({})
    several: tuple[str, ...] = ()
    groups: dict[str, tuple[str, ...]] = Field({})
    acts: tuple[str, ...] = ()

    @field_validator("languages", "spoken", "several", "acts")
    @classmethod
    def _words(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _checked(names)

    @field_validator("intents", "closed")
    @classmethod
    def _tables(cls, table: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        _checked(tuple(table))
        return {name: _checked(names) for name, names in table.items()}

    @model_validator(mode="after")
    def _known(self) -> Ontology:
        if taken := {"lang", "intent"} & {*self.closed, *self.slots}:
            raise ValueError(f"{', '.join(sorted(taken))}: no slot may have this name")
        return self

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """All slots, in the order they are first named."""
        return tuple(dict.fromkeys(slot for slots in self.intents.values() for slot in slots))

    @cached_property
    def copied(self) -> tuple[str, ...]:
        """Slots that hold words of the sentence."""
        return tuple(slot for slot in self.slots if slot not in self.closed)

    @cached_property
    def labels(self) -> Labels:
        """The outputs of an encoder that understands this."""
        closed = {slot: self.closed[slot] for slot in self.slots if slot in self.closed}
        return Labels(self.languages, self.intents, closed, self.copied, self.spoken, self.several)

    def group(self, intent: str) -> str:
        """The scorecard's row of an intent."""
        return next(
            (name for name, intents in self.groups.items() if intent in intents),
            intent.partition("_")[0],
        )

    def structure_tokens(self) -> list[str]:
        """Pieces of an action that are one token each: `{"lang":"en"`, `,"intent":"HassTurnOn"`, `,"area":"`, quote and end."""
        tokens = [f'{{"lang":"{lang}"' for lang in self.languages]
        tokens += [f',"intent":"{intent}"' for intent in self.intents]
        tokens += [
            f',"{slot}":"{value}"' for slot, values in self.closed.items() for value in values
        ]
        tokens += [f',"{slot}":"' for slot in self.copied]
        return [*tokens, '"', "}", *([JOINT] if self.several else [])]

    def grammar(self, words: Sequence[str]) -> str:
        """GBNF of the actions that a sentence of these units allows (llama.cpp grammars/README.md).

        A span is a run of neighbouring units; rule `u<i>` reads unit i and may go on to i+1. In an intent that is spoken the rules
        would let a slot come twice, as GBNF can only count by writing out every order; `parse` refuses that.
        """
        rules = [self.rules, "span ::= " + " | ".join(f"u{i}" for i in range(len(words)))]
        for i, word in enumerate(words):
            onward = f" u{i + 1}?" if i + 1 < len(words) else ""
            rules.append(f"u{i} ::= {_quoted(word)}{onward}")
        return "\n".join(rules)

    @cached_property
    def rules(self) -> str:
        """The rules of the grammar that no sentence changes."""
        choices = " | ".join(f"i{n}" for n in range(len(self.intents)))
        lines = [f'root ::= lang ({choices}) "}}"']
        lines.append(
            "lang ::= " + " | ".join(_quoted(f'{{"lang":"{lang}"') for lang in self.languages)
        )
        for n, (intent, slots) in enumerate(self.intents.items()):
            head = _quoted(f',"intent":"{intent}"')
            anyhow = [f"({' | '.join(map(_rule, slots))})*"] if slots else []
            lines.append(
                " ".join(
                    [
                        f"i{n} ::= {head}",
                        *(anyhow if intent in self.spoken else (f"{_rule(s)}?" for s in slots)),
                    ]
                )
            )
        for slot, values in self.closed.items():
            lines.append(
                f"{_rule(slot)} ::= "
                + " | ".join(_quoted(f',"{slot}":"{value}"') for value in values)
            )
        quote = _quoted('"')
        for slot in self.copied:
            spans = f"span ({_quoted(JOINT)} span)*" if slot in self.several else "span"
            lines.append(
                f"{_rule(slot)} ::= {_quoted(f',{chr(34)}{slot}{chr(34)}:{chr(34)}')} {spans} {quote}"
            )
        return "\n".join(lines)

    @classmethod
    def joined(cls, parts: Iterable[Ontology]) -> Ontology:
        """All of several ontologies; what two of them name alike is one thing, with the slots and values of both, and spoken if
        it is in each of them.

        Raises:
            ValueError: a slot is closed in one and copied in another.
        """
        parts = list(parts)
        for one in parts:
            for other in parts:
                if clash := set(one.closed) & set(other.copied):
                    raise ValueError(
                        f"slot {min(clash)} has fixed values in one source and copied words in another; rename one"
                    )
        return cls(
            languages=tuple(dict.fromkeys(lang for part in parts for lang in part.languages)),
            intents=(intents := _merged(part.intents for part in parts)),
            spoken=tuple(
                name
                for name in intents
                if all(name in part.spoken for part in parts if name in part.intents)
            ),
            closed=_merged(part.closed for part in parts),
            several=tuple(dict.fromkeys(slot for part in parts for slot in part.several)),
            groups=_merged(part.groups for part in parts),
            acts=tuple(dict.fromkeys(intent for part in parts for intent in part.acts)),
        )

    def without(self, intents: Collection[str]) -> Ontology:
        """What is left when some intents, and slots that only they have, are taken away."""
        left = {name: slots for name, slots in self.intents.items() if name not in intents}
        slots = {slot for named in left.values() for slot in named}
        return Ontology(
            languages=self.languages,
            intents=left,
            spoken=tuple(name for name in self.spoken if name in left),
            closed={slot: values for slot, values in self.closed.items() if slot in slots},
            several=tuple(slot for slot in self.several if slot in slots),
            groups={
                group: kept
                for group, names in self.groups.items()
                if (kept := tuple(n for n in names if n in left))
            },
            acts=tuple(name for name in self.acts if name in left),
        )

    def save(self, folder: Path) -> None:
        """Write `ontology.json`."""
        (folder / FILE).write_text(
            json.dumps(self.model_dump(), ensure_ascii=False, indent=1), "utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> Ontology:
        """Read `ontology.json` of an artifact.

        Raises:
            ArtifactError: missing or damaged.
        """
        return cls.read(folder / FILE)

    @classmethod
    def read(cls, path: Path) -> Ontology:
        """Read one from a file; raises as `load`."""
        try:
            return cls.model_validate(untrusted.read_json(path, most_bytes=MOST_BYTES))
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise ArtifactError(
                f"{path}: damaged{' at ' + where if where else ''}; run the recipe again"
            ) from None


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names that may stand in a grammar and in JSON without being quoted."""
    for name in names:
        if not WORD.fullmatch(name):
            raise ValueError(f"{name!r} is no name: letters, digits, _ . and - only")
    return names


def _merged(tables: Iterable[Mapping[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for table in tables:
        for name, values in table.items():
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *values)))
    return found


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _rule(slot: str) -> str:
    return "s-" + re.sub(r"[^A-Za-z0-9]", "-", slot)
