"""The automaton: exactly the actions of the grammar, in any vocabulary, and no token twice where one is forced."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.language.gbnf import Grammar

from tumen.decoding.automaton import ActionGrammar, GrammarState, OneOfTexts
from tumen.language.action import HOME, INTENTS, Action, grammar, normalise, units

SMALL = {
    "languages": ("en", "zh"),
    "intents": {
        "set": ("room", "step"),
        "set_all": ("step", "room"),
        "set_as_said": ("room", "step"),
        "none": (),
    },
    "spoken": ("set_as_said",),
    "closed": {"step": ("up", "upper", "down")},
}
END = 0
SENTENCES = ["turn on the light in the kitchen the light", "打开厨房的灯", "set it to 80 %", "x"]


class Vocabulary:
    """Tokens as they come: `pattern` says how a text falls apart."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._ids, self.texts = (
            re.compile(pattern, re.DOTALL),
            dict[str, int](),
            [""],
        )

    def cut(self, text: str) -> list[int]:
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


OURS = r'\{"lang":"\w+"|,"intent":"\w+"|,"step":"\w+"|,"(?:domain|device_class|state|ask|scope|media_class|fan_mode)":"\w+"|,"\w+":"|"|\}|;| ?[^"{};,: ]'
LIKE_GPT = r" ?[A-Za-z]{1,4}| ?\d| ?[^\sA-Za-z\d]+|\s"
LETTERS = r"."
vocabularies = pytest.mark.parametrize(
    "pattern", [OURS, LIKE_GPT, LETTERS], ids=["ours", "like gpt", "letters"]
)


def all_texts(state: GrammarState, vocabulary: Vocabulary, so_far: str = "") -> Iterator[str]:
    """Everything that may be written, whole."""
    assert state.ids is not None
    assert sorted(set(state.ids.tolist())) == state.ids.tolist()
    if not len(state.ids):
        yield so_far
    for token in state.ids.tolist():
        yield from all_texts(state.after(token), vocabulary, so_far + vocabulary.texts[token])


def all_actions(words: Sequence[str]) -> Iterator[str]:
    """The same by going through all actions of SMALL."""
    runs = {
        "".join(words[start:end])
        for start in range(len(words))
        for end in range(start + 1, len(words) + 1)
    }
    values = {"room": runs, "step": set(SMALL["closed"]["step"])}
    for lang, (intent, slots) in itertools.product(SMALL["languages"], SMALL["intents"].items()):  # type: ignore[attr-defined]
        for chosen in itertools.product(*([None, *values[slot]] for slot in slots)):
            fields = [
                f',"{slot}":"{value}"' for slot, value in zip(slots, chosen, strict=True) if value
            ]
            for order in itertools.permutations(fields) if intent in SMALL["spoken"] else [fields]:
                yield f'{{"lang":"{lang}","intent":"{intent}"{"".join(order)}}}'


@vocabularies
@pytest.mark.parametrize("sentence", ["the light the", "开灯 on", "up"])
def test_it_allows_all_actions_of_an_ontology_and_nothing_else(pattern: str, sentence: str) -> None:
    vocabulary = Vocabulary(pattern)
    words = units(sentence)
    found = list(all_texts(ActionGrammar(SMALL, vocabulary.cut, END).start(words), vocabulary))
    assert len(found) == len(set(found))
    assert set(found) == set(all_actions(words))


@vocabularies
def test_a_walk_through_the_home_is_what_the_grammar_accepts(pattern: str) -> None:
    chance, vocabulary = random.Random(1), Vocabulary(pattern)
    form = ActionGrammar(HOME.model_dump(), vocabulary.cut, END)
    for sentence in SENTENCES:
        rules = Grammar(grammar(normalise(sentence)))
        for _ in range(12):
            tokens, state = list[int](), form.start(units(normalise(sentence)))
            while state.ids is not None and len(state.ids):
                tokens.append(chance.choice(state.ids.tolist()))
                state = state.after(tokens[-1])
            assert rules.accepts(vocabulary.text(tokens)), vocabulary.text(tokens)


@vocabularies
def test_every_action_of_the_grammar_can_be_walked(pattern: str) -> None:
    vocabulary = Vocabulary(pattern)
    form, sentence = (
        ActionGrammar(HOME.model_dump(), vocabulary.cut, END),
        "turn on the light in the kitchen the light",
    )
    for action in (
        Action(
            "HassTurnOn",
            "en",
            {"domain": "light", "name": "the light", "area": "the kitchen the light"},
        ),
        Action("HassSetVolumeRelative", "de", {"step": "up", "volume": "on"}),
        Action("HassGetCurrentTime", "zh"),
    ):
        state, left = form.start(units(sentence)), action.wire()
        assert Grammar(grammar(sentence)).accepts(left)
        while left:
            assert state.ids is not None
            token = max(
                (t for t in state.ids.tolist() if left.startswith(vocabulary.texts[t])),
                key=lambda t: len(vocabulary.texts[t]),
            )
            left, state = left[len(vocabulary.texts[token]) :], state.after(token)
        assert state.ids is not None
        assert state.ids.tolist() == [END]


def test_a_piece_of_ours_is_one_choice() -> None:
    vocabulary = Vocabulary(OURS)
    state = ActionGrammar(HOME.model_dump(), vocabulary.cut, END).start(units("turn on the light"))
    written = ['{"lang":"en"', ',"intent":"HassTurnOn"', ',"domain":"light"', ',"name":"', " t"]
    for piece, ways in zip(
        written, (3, len(INTENTS), 6 + 9 + 1 + 2 + 1, 9 + 1 + 2 + 1, 3), strict=True
    ):
        assert state.ids is not None
        assert len(state.ids) == ways
        state = state.after(vocabulary.cut(piece)[0])


def test_another_vocabulary_keeps_the_quote_with_what_follows_it() -> None:
    """A model that learned from whole texts writes `","` as one token, so nothing of ours may cut it in two."""
    vocabulary = Vocabulary(LIKE_GPT)
    action = '{"lang":"en","intent":"set_all","step":"up","room":" light"}'
    state, tokens = (
        ActionGrammar(SMALL, vocabulary.cut, END).start([" light"]),
        vocabulary.cut(action),
    )
    for token in tokens:
        assert state.ids is not None
        assert token in state.ids
        state = state.after(token)


def test_a_slot_of_several_runs_joins_them() -> None:
    vocabulary = Vocabulary(OURS)
    ontology = {
        "languages": ["en"],
        "intents": {"add": ["item"]},
        "closed": {},
        "several": ["item"],
    }
    texts = set(
        all_texts_to(
            ActionGrammar(ontology, vocabulary.cut, END).start([" a", " b"]), vocabulary, 10
        )
    )
    values = {json.loads(text)["item"] for text in texts if "item" in text}
    assert {" a", " b", " a b", " a; b", " b; a", " a b; a", " a; a"} <= values
    assert all(re.fullmatch(r"( a b| a| b)(;( a b| a| b))*", value) for value in values)


def all_texts_to(
    state: GrammarState, vocabulary: Vocabulary, most: int, so_far: str = ""
) -> Iterator[str]:
    """Everything of at most so many tokens."""
    assert state.ids is not None
    if not len(state.ids):
        yield so_far
    for token in state.ids.tolist() if most else ():
        yield from all_texts_to(
            state.after(token), vocabulary, most - 1, so_far + vocabulary.texts[token]
        )


@vocabularies
def test_among_allows_its_texts_alone(pattern: str) -> None:
    vocabulary = Vocabulary(pattern)
    texts = ["on", "one", "off", "o"]
    cut: Callable[[str], list[int]] = vocabulary.cut
    assert sorted(all_texts(OneOfTexts.of(texts, cut, END), vocabulary)) == sorted(texts)
