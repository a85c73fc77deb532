"""The automaton allows exactly the actions of the grammar, in any vocabulary."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence

import pytest
from tests.language.gbnf import Grammar

from tumen.decoding.automaton import (
    ActionGrammar,
    ContinueOrClose,
    FreeText,
    GrammarState,
    InCopiedSlot,
    OneOfTexts,
)
from tumen.language.action import HOME, INTENTS, Action, grammar, normalise, units

SMALL = {
    "languages": ("en", "zh"),
    "intents": {
        "set": ("room", "step"),
        "set_all": ("step", "room"),
        "set_in_sentence_order": ("room", "step"),
        "none": (),
    },
    "spoken": ("set_in_sentence_order",),
    "closed": {"step": ("up", "upper", "down")},
}
END = 0
SENTENCES = ["turn on the light in the kitchen the light", "打开厨房的灯", "set it to 80 %", "x"]


class Vocabulary:
    """A vocabulary that grows on demand; `pattern` says how a text is split into tokens."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern, re.DOTALL)
        self._ids: dict[str, int] = {}
        self.texts = [""]  # of the end token

    def tokenize(self, text: str) -> list[int]:
        parts = self._pattern.findall(text)
        assert "".join(parts) == text
        return [self._id(part) for part in parts]

    def _id(self, part: str) -> int:
        if part not in self._ids:
            self._ids[part] = len(self.texts)
            self.texts.append(part)
        return self._ids[part]

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(self.texts[token] for token in tokens)


# One token for each piece of structure, as in our own tokenizer.
OURS = (
    r'\{"lang":"\w+"|,"intent":"\w+"|,"step":"\w+"'
    r'|,"(?:domain|device_class|state|ask|scope|media_class|fan_mode)":"\w+"'
    r'|,"\w+":"|"|\}|;| ?[^"{};,: ]'
)
LIKE_GPT = r" ?[A-Za-z]{1,4}| ?\d| ?[^\sA-Za-z\d]+|\s"
LETTERS = r"."
vocabularies = pytest.mark.parametrize(
    "pattern", [OURS, LIKE_GPT, LETTERS], ids=["ours", "like gpt", "letters"]
)


def allowed(state: GrammarState) -> list[int]:
    """The allowed tokens, which must be ascending and without duplicates."""
    assert state.allowed is not None
    tokens: list[int] = state.allowed.tolist()
    assert tokens == sorted(set(tokens))
    return tokens


def all_texts(
    state: GrammarState, vocabulary: Vocabulary, most_tokens: int = 1000, so_far: str = ""
) -> Iterator[str]:
    """Every complete text that may be written with at most so many tokens."""
    tokens = allowed(state)
    if not tokens:
        yield so_far
    for token in tokens if most_tokens else ():
        text = so_far + vocabulary.texts[token]
        yield from all_texts(state.advance(token), vocabulary, most_tokens - 1, text)


def all_actions(words: Sequence[str]) -> Iterator[str]:
    """The same for SMALL, by listing its actions."""
    count = len(words)
    runs = {
        "".join(words[start:end]) for start in range(count) for end in range(start + 1, count + 1)
    }
    values = {"room": runs, "step": {"up", "upper", "down"}}
    intents: dict[str, tuple[str, ...]] = SMALL["intents"]  # type: ignore[assignment]
    for lang, (intent, slots) in itertools.product(("en", "zh"), intents.items()):
        for chosen in itertools.product(*([None, *values[slot]] for slot in slots)):
            pairs = zip(slots, chosen, strict=True)
            fields = [f',"{slot}":"{value}"' for slot, value in pairs if value]
            any_order = intent == "set_in_sentence_order"
            for order in itertools.permutations(fields) if any_order else [fields]:
                yield f'{{"lang":"{lang}","intent":"{intent}"{"".join(order)}}}'


@vocabularies
@pytest.mark.parametrize("sentence", ["the light the", "开灯 on", "up"])
def test_it_allows_all_actions_of_an_ontology_and_nothing_else(pattern: str, sentence: str) -> None:
    vocabulary = Vocabulary(pattern)
    words = units(sentence)
    start = ActionGrammar(SMALL, vocabulary.tokenize, END).start(words)
    found = list(all_texts(start, vocabulary))
    assert len(found) == len(set(found)), "an action can be written in two ways"
    assert set(found) == set(all_actions(words))


@vocabularies
def test_a_random_walk_writes_what_the_grammar_accepts(pattern: str) -> None:
    chance = random.Random(1)
    vocabulary = Vocabulary(pattern)
    actions = ActionGrammar(HOME.model_dump(), vocabulary.tokenize, END)
    for sentence in SENTENCES:
        rules = Grammar(grammar(normalise(sentence)))
        for _ in range(12):
            tokens: list[int] = []
            state = actions.start(units(normalise(sentence)))
            while allowed(state):
                tokens.append(chance.choice(allowed(state)))
                state = state.advance(tokens[-1])
            assert rules.accepts(vocabulary.text(tokens)), vocabulary.text(tokens)


@vocabularies
@pytest.mark.parametrize(
    "action",
    [
        Action(
            "HassTurnOn",
            "en",
            {"domain": "light", "name": "the light", "area": "the kitchen the light"},
        ),
        Action("HassSetVolumeRelative", "de", {"step": "up", "volume": "on"}),
        Action("HassGetCurrentTime", "zh"),
    ],
)
def test_an_action_of_the_grammar_can_be_written(pattern: str, action: Action) -> None:
    sentence = "turn on the light in the kitchen the light"
    vocabulary = Vocabulary(pattern)
    state = ActionGrammar(HOME.model_dump(), vocabulary.tokenize, END).start(units(sentence))
    left = action.wire()
    assert Grammar(grammar(sentence)).accepts(left)
    while left:
        fitting = [token for token in allowed(state) if left.startswith(vocabulary.texts[token])]
        token = max(fitting, key=lambda fit: len(vocabulary.texts[fit]))
        left = left[len(vocabulary.texts[token]) :]
        state = state.advance(token)
    assert allowed(state) == [END]
    assert allowed(state.advance(END)) == []


def test_with_our_tokenizer_a_piece_of_structure_is_one_choice() -> None:
    vocabulary = Vocabulary(OURS)
    actions = ActionGrammar(HOME.model_dump(), vocabulary.tokenize, END)
    state = actions.start(units("turn on the light"))
    pieces = ['{"lang":"en"', ',"intent":"HassTurnOn"', ',"domain":"light"', ',"name":"', " t"]
    domains = len(HOME.closed["domain"])
    after_domain = len(HOME.closed["device_class"]) + len(HOME.closed["scope"]) + 2 + 1
    choices = [3, len(INTENTS), domains + after_domain, after_domain, 3]
    for piece, count in zip(pieces, choices, strict=True):
        assert len(allowed(state)) == count
        state = state.advance(vocabulary.tokenize(piece)[0])


def test_another_vocabulary_keeps_a_quote_and_what_follows_it_in_one_token() -> None:
    """A model that learned from whole texts writes `","` as one token, so it must not be split."""
    vocabulary = Vocabulary(LIKE_GPT)
    action = '{"lang":"en","intent":"set_all","step":"up","room":" light"}'
    state = ActionGrammar(SMALL, vocabulary.tokenize, END).start([" light"])
    for token in vocabulary.tokenize(action):
        assert token in allowed(state)
        state = state.advance(token)


def test_only_a_slot_of_several_runs_joins_them() -> None:
    vocabulary = Vocabulary(OURS)
    ontology = {
        "languages": ["en"],
        "intents": {"add": ["item", "name"]},
        "closed": {},
        "several": ["item"],
    }
    start = ActionGrammar(ontology, vocabulary.tokenize, END).start([" a", " b"])
    actions = [json.loads(text) for text in all_texts(start, vocabulary, 10)]
    items = {action["item"] for action in actions if "item" in action}
    assert {" a", " b", " a b", " a; b", " b; a", " a b; a", " a; a"} <= items
    assert all(re.fullmatch(r"( a b| a| b)(;( a b| a| b))*", item) for item in items)
    assert {action["name"] for action in actions if "name" in action} == {" a", " b", " a b"}


@vocabularies
def test_one_of_texts_allows_these_texts_alone(pattern: str) -> None:
    vocabulary = Vocabulary(pattern)
    texts = ["on", "one", "off", "o"]
    start = OneOfTexts.start(texts, vocabulary.tokenize, END)
    assert sorted(all_texts(start, vocabulary)) == sorted(texts)


@vocabularies
def test_one_of_texts_ends_with_the_end_token(pattern: str) -> None:
    vocabulary = Vocabulary(pattern)
    state: GrammarState = OneOfTexts.start(["on"], vocabulary.tokenize, END)
    for token in vocabulary.tokenize("on"):
        state = state.advance(token)
    assert allowed(state) == [END]


def test_free_text_allows_any_token_until_an_end_token() -> None:
    state = FreeText(lambda token: token in (7, 9))
    assert state.allowed is None
    assert state.advance(3) is state
    for end in (7, 9):
        assert allowed(state.advance(end)) == []


class TestCopiedRun:
    """Inside a copied slot, with the sentence "a b a c"."""

    def state_after(self, *words: str) -> GrammarState:
        vocabulary = Vocabulary(OURS)
        sentence = [" a", " b", " a", " c"]
        for word in sentence:
            vocabulary.tokenize(word)
        self.vocabulary = vocabulary
        state = ActionGrammar(SMALL, vocabulary.tokenize, END).start(sentence)
        for piece in ('{"lang":"en"', ',"intent":"set"', ',"room":"', *words):
            state = state.advance(vocabulary.tokenize(piece)[0])
        return state

    def texts(self, state: GrammarState) -> set[str]:
        return {self.vocabulary.texts[token] for token in allowed(state)}

    def test_a_run_may_begin_at_any_word(self) -> None:
        assert self.texts(self.state_after()) == {" a", " b", " c"}

    def test_all_places_where_the_words_stand_are_followed(self) -> None:
        assert self.texts(self.state_after(" a")) == {" b", " c", '"'}
        assert self.texts(self.state_after(" a", " b")) == {" a", '"'}

    def test_at_the_end_of_the_sentence_the_run_must_end(self) -> None:
        assert self.texts(self.state_after(" c")) == {'"'}

    def test_it_knows_whether_a_token_continues_the_run(self) -> None:
        state = self.state_after(" a")
        assert isinstance(state, ContinueOrClose)
        (quote,) = self.vocabulary.tokenize('"')
        assert [state.continues(token) for token in allowed(state)] == [
            token != quote for token in allowed(state)
        ]

    def test_the_rest_of_the_sentence_begins_at_the_first_possible_place(self) -> None:
        def rest(state: GrammarState) -> str:
            inside = state.inside if isinstance(state, ContinueOrClose) else state
            assert isinstance(inside, InCopiedSlot)
            return self.vocabulary.text(inside.rest_of_sentence)

        assert rest(self.state_after()) == " a b a c"
        assert rest(self.state_after(" a")) == " b a c"
        assert rest(self.state_after(" b")) == " a c"


class TestNames:
    """Names of the home in the sentence: `the reading lamp` is not cut, and is preferred."""

    ONTOLOGY = {  # noqa: RUF012
        "languages": ("en",),
        "intents": {"set": ("name", "area", "query")},
        "closed": {},
    }
    UNITS = (" the", " reading", " lamp", " in", " blue", " hall")
    NAMES = ((1, 3, ("name",)), (4, 6, ("area",)))

    @pytest.fixture
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(r'\{"lang":"\w+"|,"intent":"\w+"|,"\w+":"|"|\}| ?[^"{},: ]+')

    def state(self, vocabulary: Vocabulary, *texts: str, known: bool = True) -> GrammarState:
        actions = ActionGrammar(self.ONTOLOGY, vocabulary.tokenize, END)
        state = actions.start(self.UNITS, self.NAMES if known else ())
        for text in ('{"lang":"en"', ',"intent":"set"', *texts):
            (token,) = vocabulary.tokenize(text)
            state = state.advance(token)
        return state

    def texts(self, vocabulary: Vocabulary, tokens: Iterable[int]) -> set[str]:
        return {vocabulary.texts[token] for token in tokens}

    def allowed(self, vocabulary: Vocabulary, *texts: str, known: bool = True) -> set[str]:
        return self.texts(vocabulary, allowed(self.state(vocabulary, *texts, known=known)))

    def preferred(self, vocabulary: Vocabulary, *texts: str) -> set[str]:
        return self.texts(vocabulary, self.state(vocabulary, *texts).preferred)

    def test_no_run_of_a_name_or_an_area_cuts_one(self, vocabulary: Vocabulary) -> None:
        assert self.allowed(vocabulary, ',"name":"') == {" the", " reading", " in", " blue"}
        assert self.allowed(vocabulary, ',"area":"', " reading") == {" lamp"}
        assert self.allowed(vocabulary, ',"name":"', " the") == {" reading", '"'}
        free = self.allowed(vocabulary, ',"name":"', " reading", known=False)
        assert free == {" lamp", '"'}

    def test_other_slots_hold_any_words(self, vocabulary: Vocabulary) -> None:
        assert self.allowed(vocabulary, ',"query":"') == set(self.UNITS)
        assert '"' in self.allowed(vocabulary, ',"query":"', " reading")

    def test_the_borders_of_a_name_are_preferred(self, vocabulary: Vocabulary) -> None:
        assert self.preferred(vocabulary, ',"name":"') == {" reading"}
        assert self.preferred(vocabulary, ',"area":"') == {" blue"}
        assert self.preferred(vocabulary, ',"name":"', " reading") == set()
        assert self.preferred(vocabulary, ',"name":"', " reading", " lamp") == {'"'}
        assert self.preferred(vocabulary, ',"name":"', " blue", " hall") == set()

    def test_a_slot_is_preferred_as_long_as_a_name_waits_for_it(
        self, vocabulary: Vocabulary
    ) -> None:
        assert self.preferred(vocabulary) == {',"name":"', ',"area":"'}
        lamp = (',"name":"', " reading", " lamp", '"')
        assert self.preferred(vocabulary, *lamp) == {',"area":"'}
        hall = (',"area":"', " blue", " hall", '"')
        assert self.preferred(vocabulary, *lamp, *hall) == set()

    def test_without_names_nothing_is_preferred(self, vocabulary: Vocabulary) -> None:
        for texts in ((), (',"name":"',), (',"name":"', " reading")):
            assert not self.state(vocabulary, *texts, known=False).preferred
