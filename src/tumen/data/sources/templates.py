"""Sentence templates in hassil's language, and a speaker that samples sentences from them together with their actions.

Two sources are read into one form: Home Assistant's own templates (PyPI `home-assistant-intents`, CC BY 4.0) and this project's
`phrases/*.yaml`, which add how people really talk and what is not for a home. hassil's own sampler enumerates; this one draws at
random and remembers which words filled which slot.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from tumen.core.artifact import hash_of
from tumen.core.errors import InputError
from tumen.core.extras import optional
from tumen.data.sources.languages import language_data
from tumen.language import CLOSED, INTENTS, LANGUAGES, Action, is_cjk, normalise, units

if TYPE_CHECKING:
    from hassil import Expression, ListReference, RangeSlotList, TextSlotList

PURPOSE = "sampling sentences from templates"
hassil = optional("hassil", PURPOSE)
hassil_numbers = optional("hassil.numbers", PURPOSE)
home_assistant_intents = optional("home_assistant_intents", PURPOSE)
yaml = optional("yaml", PURPOSE)

# Home Assistant's slot names -> ours. A floor is an area to the ear; only the home knows the difference.
RENAMED = {
    "floor": "area", "volume_level": "volume", "search_query": "query", "conversation_command": "command",
    "volume_step": "step",
}  # fmt: skip
# Parts of a time span; in an action they are one run of words.
TIME = {"hours": "duration", "minutes": "duration", "seconds": "duration"} | {
    "start_hours": "start", "start_minutes": "start", "start_seconds": "start"
}  # fmt: skip
# How people say a number; CLDR's other rule sets are for cheques, years and dates.
SPOKEN = ("spellout-cardinal", "spellout-numbering")
HOME_LISTS = ("name", "area", "floor")
ASKS = ("any", "all", "which", "how_many", "where")
OPEN_LISTS = ("bs_open_states", "bs_door_states")
DOOR = {"on": "open", "off": "closed"}


@dataclass(frozen=True)
class Template:
    """One template: what it says, what it means, and which devices its {name} may be."""

    id: str
    lang: str
    intent: str
    expression: Expression
    grammar: Grammar
    fixed: Mapping[str, str] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    topic: str = ""


@dataclass(frozen=True)
class Grammar:
    """Rules and lists a template may refer to."""

    lang: str
    rules: Mapping[str, Any]
    lists: Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A normalised sentence and the action it means. `home` is the number of the home it was said in, -1 for none."""

    sentence: str
    action: Action
    template: str
    home: int = -1


def load_templates(lang: str) -> list[Template]:
    """All templates of a language, Home Assistant's first.

    Raises:
        InputError: the package has no such language.
    """
    return [*_hass_templates(lang), *_own_templates(lang)]


def _hass_templates(lang: str) -> Iterator[Template]:
    tree = home_assistant_intents.get_intents(language_data(lang).home_assistant)
    if tree is None:
        raise InputError(f"home-assistant-intents has no templates for {lang!r}")
    intents = hassil.Intents.from_dict(tree)
    for name, intent in intents.intents.items():
        if name not in INTENTS:
            continue
        for block in intent.data:
            rules = {**intents.expansion_rules, **block.expansion_rules}
            grammar = Grammar(lang, rules, {**intents.slot_lists, **block.slot_lists})
            domains = _domains(block.requires_context)
            for sentence in block.sentences:
                key = hash_of([lang, name, sentence.text, sorted(map(str, block.slots.items()))])
                yield Template(
                    key, lang, name, sentence.expression, grammar, _fixed(name, block), domains
                )


def _domains(context: Mapping[str, Any] | None) -> tuple[str, ...]:
    domain = (context or {}).get("domain", ())
    if isinstance(domain, Mapping):
        domain = domain.get("value", ())
    return (domain,) if isinstance(domain, str) else tuple(domain)


def _fixed(intent: str, block: Any) -> dict[str, str]:
    """Closed slots that a block of Home Assistant's templates sets without words."""
    slots = {
        ("step" if name == "volume_step" else name): str(value)
        for name, value in block.slots.items()
    }
    response = str(block.response or "")
    if intent == "HassGetState" and response in ASKS:
        slots["ask"] = response
    if response.endswith("_all") or (block.metadata or {}).get("slot_combination") == "domain_all":
        slots["scope"] = "all"
    return {
        name: value
        for name, value in slots.items()
        if name in INTENTS[intent] and value in CLOSED.get(name, ())
    }


@cache
def phrases(lang: str, kind: str = "phrases") -> Mapping[str, Any]:
    """Return the project's own `phrases` of a language, or the `names` of rooms and things in it."""
    text = resources.files("tumen.data.sources").joinpath(f"{kind}/{lang}.yaml").read_text("utf-8")
    return dict(
        yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    )  # the same in C, eight times as fast


def _own_templates(lang: str) -> Iterator[Template]:
    tree = phrases(lang)
    rules = {name: hassil.parse_sentence(text) for name, text in tree.get("rules", {}).items()}
    grammar = Grammar(lang, rules, tree.get("lists", {}))
    for intent, blocks in tree["intents"].items():
        for block in blocks:
            domains = _domains(block.get("requires_context"))
            for text in block["sentences"]:
                fixed = {name: str(value) for name, value in block.get("slots", {}).items()}
                key = hash_of([lang, intent, text, sorted(fixed.items())])
                yield Template(
                    key,
                    lang,
                    intent,
                    hassil.parse_sentence(text).expression,
                    grammar,
                    fixed,
                    domains,
                    "own",
                )
    for topic, texts in tree["none"].items():
        for text in texts:
            yield Template(
                hash_of([lang, "none", text]),
                lang,
                "none",
                hassil.parse_sentence(text).expression,
                grammar,
                topic=topic,
            )


class Speaker:
    """Draws sentences from templates.

    Args:
        rng: the only source of chance.
        home: a generated home with `names(lang, kind, domains)`, see homes.py.
        fillers: words for wildcards, {list: words}.
    """

    def __init__(self, rng: random.Random, home: Any, fillers: Mapping[str, Sequence[str]]) -> None:
        self.rng, self.home, self.fillers = rng, home, fillers

    def say(self, template: Template) -> Example | None:
        """One sentence of a template, or None when this home has no such device or the words cannot be copied."""
        pieces: list[tuple[str, str | None]] = []
        slots = dict(template.fixed)
        if not self._walk(template.expression, template, pieces, slots):
            return None
        raw = "".join(text for text, _ in pieces)
        try:
            sentence = normalise(raw)
        except InputError:
            return None
        if _is_doubled(sentence):
            return None
        for slot in {slot for _, slot in pieces if slot and slot not in TIME}:
            words = "".join(text for text, owner in pieces if owner == slot)
            copied = copied_words(sentence, words)
            if copied is None or slot not in INTENTS[template.intent]:
                return None
            slots[slot] = copied
        for slot in {TIME[owner] for _, owner in pieces if owner in TIME}:
            span = time_span(
                sentence,
                [text for text, owner in pieces if owner and TIME.get(owner) == slot],
                template.lang,
            )
            if span is None or slot not in INTENTS[template.intent]:
                return None
            slots[slot] = span
        return Example(sentence, Action(template.intent, template.lang, slots), template.id)

    def _walk(
        self,
        node: Expression,
        template: Template,
        pieces: list[tuple[str, str | None]],
        slots: dict[str, str],
    ) -> bool:
        """Append the words of a node; False when something in it cannot be said."""
        if isinstance(node, hassil.TextChunk):
            pieces.append((node.original_text, None))
            return True
        if isinstance(node, hassil.RuleReference):
            rule = template.grammar.rules.get(node.rule_name)
            return rule is not None and self._walk(rule.expression, template, pieces, slots)
        if isinstance(node, hassil.ListReference):
            return self._list(node, template, pieces, slots)
        if isinstance(node, hassil.Alternative):
            return self._walk(self.rng.choice(node.items), template, pieces, slots)
        if isinstance(node, hassil.Group):
            items = list(node.items)
            if isinstance(node, hassil.Permutation):
                self.rng.shuffle(items)
            return all(self._walk(item, template, pieces, slots) for item in items)
        return False

    def _list(
        self,
        node: ListReference,
        template: Template,
        pieces: list[tuple[str, str | None]],
        slots: dict[str, str],
    ) -> bool:
        name, slot = node.list_name, slot_of(node)
        if name in HOME_LISTS:
            words = self.home.name(self.rng, template.lang, name, template.domains)
            closed = None
        else:
            words, closed = self._value(name, node, template, slots)
        if words is None:
            return False
        if closed is None and slot in CLOSED:
            return False
        if closed is not None:
            slots[slot] = closed
            pieces.append((words, None))
            return True
        if (
            slot in slots
            and slot not in template.fixed
            and any(owner == slot for _, owner in pieces)
        ):
            return False  # one slot, one run of words
        pieces.append((words, slot if slot in INTENTS[template.intent] or slot in TIME else None))
        return True

    def _value(
        self, name: str, node: ListReference, template: Template, slots: dict[str, str]
    ) -> tuple[str | None, str | None]:
        """Words from a list, and the closed value they stand for (None when the words themselves are copied)."""
        source = template.grammar.lists.get(name)
        if isinstance(source, Sequence) and not isinstance(source, str):
            entry = self.rng.choice(source)
            return (
                (entry["in"], str(entry["out"]))
                if isinstance(entry, Mapping)
                else (str(entry), None)
            )
        if isinstance(source, hassil.RangeSlotList):
            if name.startswith("volume_step_"):
                slots["step"] = name.removeprefix("volume_step_")
            return self._number(source, template.lang), None
        if isinstance(source, hassil.TextSlotList):
            return self._text(source, name, slot_of(node), template)
        words = self.fillers.get(name)
        return (self.rng.choice(words) if words else None), None

    def _text(
        self, source: TextSlotList, name: str, slot: str, template: Template
    ) -> tuple[str | None, str | None]:
        value = self.rng.choice(source.values)
        inner: list[tuple[str, str | None]] = []
        if not self._walk(value.text_in, template, inner, {}):
            return None, None
        words, out = "".join(text for text, _ in inner), str(value.value_out)
        if slot == "state":
            out = state_of(name, out, words, template.lang)
        return words, (out if out in CLOSED.get(slot, ()) else None)

    def _number(self, source: RangeSlotList, lang: str) -> str:
        numbers = range(source.start, source.stop + 1, source.step)
        number: float = self.rng.choice(numbers)
        if source.fraction_type and self.rng.random() < 0.15:
            marks = language_data(lang).decimal_marks
            mark = self.rng.choice(marks) if len(marks) > 1 else marks
            return f"{number}{mark}5"
        if self.rng.random() < 0.6:
            return str(number)
        spoken = (
            hassil_numbers.get_rbnf_engine(language_data(lang).home_assistant)
            .format_number(number)
            .text_by_ruleset
        )
        kinds = [
            text
            for name, text in spoken.items()
            if name.startswith(SPOKEN) and "financial" not in name and "days" not in name
        ]
        return str(
            self.rng.choice(
                sorted({text.replace("\u00ad", "") for text in kinds or spoken.values()})
            )
        )


def slot_of(node: ListReference) -> str:
    """Our slot for a list of Home Assistant's; a volume step in percent says by how much, not which way."""
    return (
        "volume"
        if node.list_name.startswith("volume_step_")
        else RENAMED.get(node.slot_name, node.slot_name)
    )


def state_of(list_name: str, value: str, words: str, lang: str) -> str:
    """One state for one word: `offen` is open and `an` is on, whichever list of Home Assistant's they come from."""
    opens = any(part in words.lower() for part in language_data(lang).open_words)
    if list_name in OPEN_LISTS or (list_name == "on_off_states" and opens):
        return DOOR.get(value, value)
    return value


def _is_doubled(sentence: str) -> bool:
    """Whether a template adds a word that a name ends with: `{floor} [floor]` of `ground floor`.

    All languages are asked: a home may have a device with an English name in any of them.
    """
    return any(language_data(lang).doubled.search(sentence) for lang in LANGUAGES)


def time_span(sentence: str, parts: Sequence[str], lang: str) -> str | None:
    """The run from the first number of a time span to the unit after the last one, or None when it is not to be found.

    Args:
        sentence: normalised.
        parts: the numbers in the order they are said; some hold their unit already (`eine halbe stunde`).
    """
    first, position = -1, 0
    for part in parts:
        wanted = normalise(part)
        at = f"{sentence} ".find(wanted, position)
        if at < 0:
            return None
        first, position = (at if first < 0 else first), at + len(wanted)
    time_unit = language_data(lang).time_unit
    unit = time_unit.match(sentence, position)
    if unit is None and not time_unit.search(f" {parts[-1].lower()}"):
        return None
    return copied_words(sentence, sentence[first : unit.end() if unit else position])


def copied_words(sentence: str, words: str) -> str | None:
    """The run of whole units of a normalised sentence that holds `words` (`küchen` gives `küchenlicht`), or None."""
    try:
        wanted = normalise(words)
    except InputError:
        return None
    start = f" {sentence} ".find(f" {wanted} ")
    if start < 0:
        start = sentence.find(wanted)
    if start < 0:
        return None
    run, position = "", 0
    for unit in units(sentence):
        begin = sentence.index(unit.strip(), position)
        position = begin + len(unit.strip())
        if position > start and begin < start + len(wanted):
            run += unit
    return run.strip()


def literals(template: Template) -> set[str]:
    """Every word that a template may say by itself, rules included; characters where words are not spaced."""
    found: set[str] = set()
    waiting, seen = [template.expression], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, hassil.TextChunk):
            found |= _words(node.text)
        elif isinstance(node, hassil.RuleReference) and node.rule_name not in seen:
            seen.add(node.rule_name)
            rule = template.grammar.rules.get(node.rule_name)
            waiting += [rule.expression] if rule else []
        elif isinstance(node, hassil.Group):
            waiting += node.items
    return found


@cache  # rules come back in hundreds of templates
def _words(text: str) -> frozenset[str]:
    characters = (char for char in text if is_cjk(char))
    return frozenset((*characters, *(word for word in text.lower().split() if not is_cjk(word[0]))))


def skip_words(lang: str) -> list[str]:
    """Words of Home Assistant's that may stand before or after a command without changing it."""
    tree = home_assistant_intents.get_intents(language_data(lang).home_assistant)
    return [str(word) for word in (tree or {}).get("skip_words", ())]
