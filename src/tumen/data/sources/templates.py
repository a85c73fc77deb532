"""Sentence templates in hassil's language, and a sampler of sentences with their actions.

Two sources have the same form: Home Assistant's own templates (PyPI `home-assistant-intents`, CC BY
4.0) and this project's `phrases/*.yaml`, which add everyday speech and sentences that are not for a
home. hassil's own sampler enumerates; this one draws at random and records which words filled which
slot.
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
from tumen.language import CLOSED, INTENTS, LANGUAGES, NONE, Action, is_cjk, normalise, units

if TYPE_CHECKING:
    from hassil import Expression, ListReference, RangeSlotList, TextSlotList

PURPOSE = "sampling sentences from templates"
hassil = optional("hassil", PURPOSE)
hassil_numbers = optional("hassil.numbers", PURPOSE)
home_assistant_intents = optional("home_assistant_intents", PURPOSE)
yaml = optional("yaml", PURPOSE)

# Home Assistant's slot names -> ours. A floor is an area in a sentence; a home tells them apart.
RENAMED = {
    "floor": "area",
    "volume_level": "volume",
    "search_query": "query",
    "conversation_command": "command",
    "volume_step": "step",
}
# Parts of a time span; in an action they are one run of words.
TIME = {
    "hours": "duration",
    "minutes": "duration",
    "seconds": "duration",
    "start_hours": "start",
    "start_minutes": "start",
    "start_seconds": "start",
}
VOLUME_STEP = "volume_step_"  # lists of percents, by direction
FRACTIONS = 0.15  # share of numbers with tenths, where a list has them
DIGITS = 0.6  # share of numbers written in digits
# How people say a number; CLDR's other rule sets are for cheques, years and dates.
SPOKEN = ("spellout-cardinal", "spellout-numbering")
NOT_POSSIBLE = "NotPossible"  # the intent of wishes that are understood and not carried out
HOME_LISTS = ("name", "area", "floor")
ASKS = ("any", "all", "which", "how_many", "where")
OPEN_LISTS = ("bs_open_states", "bs_door_states")
DOOR = {"on": "open", "off": "closed"}


# (text, slot that it fills or None), in the order of the sentence
Pieces = list[tuple[str, str | None]]


@dataclass(frozen=True)
class Template:
    """One template.

    Attributes:
        id: hash of its text and meaning.
        lang: its language.
        intent: of all its sentences.
        expression: its text, parsed.
        grammar: rules and lists it refers to.
        fixed: slots that it sets without words.
        domains: of the devices that its {name} may be; empty: any.
        topic: of sentences that are not for a home; `own` for our own templates of intents.
    """

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
    """Rules and lists that a template may refer to."""

    lang: str
    rules: Mapping[str, Any]
    lists: Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A normalized sentence and the action it means.

    Attributes:
        sentence: normalized.
        action: what it means.
        template: id of its template, or the place of its row.
        home: number of the home it was said in, -1 for none.
    """

    sentence: str
    action: Action
    template: str
    home: int = -1


def load_templates(lang: str) -> list[Template]:
    """Return all templates of a language, Home Assistant's first.

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
            fixed = _fixed(name, block)
            slots = sorted(str(item) for item in block.slots.items())
            for sentence in block.sentences:
                key = hash_of([lang, name, sentence.text, slots])
                yield Template(key, lang, name, sentence.expression, grammar, fixed, domains)


def _domains(context: Mapping[str, Any] | None) -> tuple[str, ...]:
    domain = (context or {}).get("domain", ())
    if isinstance(domain, Mapping):
        domain = domain.get("value", ())
    return (domain,) if isinstance(domain, str) else tuple(domain)


def _fixed(intent: str, block: Any) -> dict[str, str]:
    """Return the closed slots that a block of Home Assistant's templates sets without words."""
    slots = {}
    for name, value in block.slots.items():
        slots["step" if name == "volume_step" else name] = str(value)
    response = str(block.response or "")
    if intent == "HassGetState" and response in ASKS:
        slots["ask"] = response
    metadata = block.metadata or {}
    if response.endswith("_all") or metadata.get("slot_combination") == "domain_all":
        slots["scope"] = "all"
    known = {name: CLOSED.get(name, ()) for name in INTENTS[intent]}
    return {name: value for name, value in slots.items() if value in known.get(name, ())}


@cache
def phrases(lang: str, kind: str = "phrases") -> Mapping[str, Any]:
    """Return the project's own `phrases` of a language, or its `names` of rooms and things."""
    path = resources.files("tumen.data.sources").joinpath(f"{kind}/{lang}.yaml")
    # The loader in C is eight times as fast; a PyYAML without it has the one in Python.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return dict(yaml.load(path.read_text("utf-8"), loader))


def _own_templates(lang: str) -> Iterator[Template]:
    tree = phrases(lang)
    rules = {name: hassil.parse_sentence(text) for name, text in tree.get("rules", {}).items()}
    grammar = Grammar(lang, rules, tree.get("lists", {}))
    for intent, blocks in tree["intents"].items():
        for block in blocks:
            yield from _block_templates(intent, block, grammar)
    wishes = tree.get("not_possible", {})
    for topic, texts in tree["none"].items():
        wish = wishes.get(topic)
        for text in texts:
            key = hash_of([lang, NONE, text])
            parsed = hassil.parse_sentence(text).expression
            if wish:
                fixed = {"wish": str(wish)}
                yield Template(key, lang, NOT_POSSIBLE, parsed, grammar, fixed, topic=topic)
            else:
                yield Template(key, lang, NONE, parsed, grammar, topic=topic)


def _block_templates(intent: str, block: Mapping[str, Any], grammar: Grammar) -> Iterator[Template]:
    """Yield the templates of one block of an intent's phrases."""
    lang = grammar.lang
    domains = _domains(block.get("requires_context"))
    fixed = {name: str(value) for name, value in block.get("slots", {}).items()}
    for text in block["sentences"]:
        key = hash_of([lang, intent, text, sorted(fixed.items())])
        parsed = hassil.parse_sentence(text).expression
        yield Template(key, lang, intent, parsed, grammar, fixed, domains, "own")


class Speaker:
    """Draws sentences from templates.

    Args:
        rng: the only source of chance.
        home: a generated home with `name(rng, lang, kind, domains)`, see generated_homes.py.
        fillers: words for wildcards, {list: words}.
    """

    def __init__(self, rng: random.Random, home: Any, fillers: Mapping[str, Sequence[str]]) -> None:
        self.rng = rng
        self.home = home
        self.fillers = fillers

    def say(self, template: Template) -> Example | None:
        """Draw one sentence of a template.

        Returns:
            None when this home has no such device or the words cannot be copied.
        """
        pieces: Pieces = []
        slots = dict(template.fixed)
        # A template may name devices that this home does not have.
        if not self._walk(template.expression, template, pieces, slots):
            return None
        raw = "".join(text for text, _ in pieces)
        try:
            sentence = normalise(raw)
        except InputError:
            return None
        if _is_doubled(sentence):
            return None
        if not _add_copied(slots, sentence, pieces, template):
            return None
        if not _add_times(slots, sentence, pieces, template):
            return None
        return Example(sentence, Action(template.intent, template.lang, slots), template.id)

    def _walk(
        self, node: Expression, template: Template, pieces: Pieces, slots: dict[str, str]
    ) -> bool:
        """Append the words of a node; return False when a part of it cannot be said."""
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
        self, node: ListReference, template: Template, pieces: Pieces, slots: dict[str, str]
    ) -> bool:
        """Append the words of a list, and set a closed slot that they stand for."""
        name = node.list_name
        slot = slot_of(node)
        closed = None
        if name in HOME_LISTS:
            words = self.home.name(self.rng, template.lang, name, template.domains)
        else:
            words, closed = self._value(name, node, template, slots)
        if words is None:
            return False
        if closed is not None:
            slots[slot] = closed
            pieces.append((words, None))
            return True
        if slot in CLOSED:
            return False
        said_before = any(owner == slot for _, owner in pieces)
        if said_before and slot in slots and slot not in template.fixed:
            return False  # one slot, one run of words
        owned = slot in INTENTS[template.intent] or slot in TIME
        pieces.append((words, slot if owned else None))
        return True

    def _value(
        self, name: str, node: ListReference, template: Template, slots: dict[str, str]
    ) -> tuple[str | None, str | None]:
        """Draw from a list.

        Returns:
            (words, closed value they stand for); the value is None when the words are copied, the
            words are None when there are none.
        """
        source = template.grammar.lists.get(name)
        if isinstance(source, Sequence) and not isinstance(source, str):
            entry = self.rng.choice(source)
            if isinstance(entry, Mapping):
                return entry["in"], str(entry["out"])
            return str(entry), None
        if isinstance(source, hassil.RangeSlotList):
            if name.startswith(VOLUME_STEP):
                slots["step"] = name.removeprefix(VOLUME_STEP)
            return self._number(source, template.lang), None
        if isinstance(source, hassil.TextSlotList):
            return self._text(source, name, slot_of(node), template)
        words = self.fillers.get(name)
        return (self.rng.choice(words) if words else None), None

    def _text(
        self, source: TextSlotList, name: str, slot: str, template: Template
    ) -> tuple[str | None, str | None]:
        value = self.rng.choice(source.values)
        inner: Pieces = []
        if not self._walk(value.text_in, template, inner, {}):
            return None, None
        words = "".join(text for text, _ in inner)
        out = str(value.value_out)
        if slot == "state":
            out = state_of(name, out, words, template.lang)
        return words, (out if out in CLOSED.get(slot, ()) else None)

    def _number(self, source: RangeSlotList, lang: str) -> str:
        """Draw a number of a range, in digits or in words."""
        numbers = range(source.start, source.stop + 1, source.step)
        number: float = self.rng.choice(numbers)
        if source.fraction_type and self.rng.random() < FRACTIONS:
            marks = language_data(lang).decimal_marks
            mark = self.rng.choice(marks) if len(marks) > 1 else marks
            return f"{number}{mark}5"
        if self.rng.random() < DIGITS:
            return str(number)
        return str(self.rng.choice(_spoken(number, lang)))


def _spoken(number: float, lang: str) -> list[str]:
    """Return how people say a number, sorted."""
    engine = hassil_numbers.get_rbnf_engine(language_data(lang).home_assistant)
    by_ruleset = engine.format_number(number).text_by_ruleset
    kinds = []
    for name, text in by_ruleset.items():
        if name.startswith(SPOKEN) and "financial" not in name and "days" not in name:
            kinds.append(text)
    # CLDR puts soft hyphens into long numbers.
    return sorted({text.replace("\u00ad", "") for text in kinds or by_ruleset.values()})


def _add_copied(slots: dict[str, str], sentence: str, pieces: Pieces, template: Template) -> bool:
    """Set the slots of copied words; return False when some cannot be copied."""
    for slot in {slot for _, slot in pieces if slot and slot not in TIME}:
        words = "".join(text for text, owner in pieces if owner == slot)
        copied = copied_words(sentence, words)
        if copied is None or slot not in INTENTS[template.intent]:
            return False
        slots[slot] = copied
    return True


def _add_times(slots: dict[str, str], sentence: str, pieces: Pieces, template: Template) -> bool:
    """Set the slots of time spans; return False when one cannot be copied."""
    timed = [(text, TIME[owner]) for text, owner in pieces if owner in TIME]
    for slot in {slot for _, slot in timed}:
        parts = [text for text, owner in timed if owner == slot]
        span = time_span(sentence, parts, template.lang)
        if span is None or slot not in INTENTS[template.intent]:
            return False
        slots[slot] = span
    return True


def slot_of(node: ListReference) -> str:
    """Return our slot for a list of Home Assistant's.

    A volume step in percent is an amount; its list's name has the direction.
    """
    if node.list_name.startswith(VOLUME_STEP):
        return "volume"
    name = str(node.slot_name)
    return RENAMED.get(name, name)


def state_of(list_name: str, value: str, words: str, lang: str) -> str:
    """Return the state that words stand for: `offen` is open and `an` is on in every list."""
    opens = any(part in words.lower() for part in language_data(lang).open_words)
    if list_name in OPEN_LISTS or (list_name == "on_off_states" and opens):
        return DOOR.get(value, value)
    return value


def _is_doubled(sentence: str) -> bool:
    """Return whether a template repeats the end of a name: `{floor} [floor]` of `ground floor`.

    The patterns of all languages apply: a home in any of them may have devices with English names.
    """
    return any(language_data(lang).doubled.search(sentence) for lang in LANGUAGES)


def time_span(sentence: str, parts: Sequence[str], lang: str) -> str | None:
    """Return the run from a time span's first number to the unit after its last; None if not found.

    Args:
        sentence: normalized.
        parts: the numbers in their order; some include their unit (`eine halbe stunde`).
        lang: language of the units.
    """
    first = -1
    position = 0
    for part in parts:
        wanted = normalise(part)
        at = f"{sentence} ".find(wanted, position)
        if at < 0:
            return None
        if first < 0:
            first = at
        position = at + len(wanted)
    time_unit = language_data(lang).time_unit
    unit = time_unit.match(sentence, position)
    if unit is None and not time_unit.search(f" {parts[-1].lower()}"):
        return None
    end = unit.end() if unit else position
    return copied_words(sentence, sentence[first:end])


def copied_words(sentence: str, words: str) -> str | None:
    """Return the whole units of a normalized sentence that contain `words`; None if not found.

    `küchen` gives `küchenlicht`.
    """
    try:
        wanted = normalise(words)
    except InputError:
        return None
    start = f" {sentence} ".find(f" {wanted} ")
    if start < 0:
        start = sentence.find(wanted)
    if start < 0:
        return None
    run = ""
    position = 0
    for unit in units(sentence):
        word = unit.strip()
        begin = sentence.index(word, position)
        position = begin + len(word)
        if position > start and begin < start + len(wanted):
            run += unit
    return run.strip()


def literals(template: Template) -> set[str]:
    """Return every word in a template and its rules; characters where words are not spaced."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [template.expression]
    while waiting:
        node = waiting.pop()
        if isinstance(node, hassil.TextChunk):
            found |= _words(node.text)
        elif isinstance(node, hassil.RuleReference) and node.rule_name not in seen:
            seen.add(node.rule_name)
            rule = template.grammar.rules.get(node.rule_name)
            if rule:
                waiting.append(rule.expression)
        elif isinstance(node, hassil.Group):
            waiting += node.items
    return found


@cache  # rules come back in hundreds of templates
def _words(text: str) -> frozenset[str]:
    characters = [char for char in text if is_cjk(char)]
    spaced = [word for word in text.lower().split() if not is_cjk(word[0])]
    return frozenset((*characters, *spaced))


def skip_words(lang: str) -> list[str]:
    """Return words that may stand before or after a command, from Home Assistant's lists."""
    tree = home_assistant_intents.get_intents(language_data(lang).home_assistant)
    return [str(word) for word in (tree or {}).get("skip_words", ())]
