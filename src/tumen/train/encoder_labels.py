"""What an encoder learns from the shards of a dataset: sentences, and labels of their actions.

An example of a shard is a prompt and an action as tokens. The prompt becomes the encoder's input;
each structure token of the action is a label of the sentence, and copied words, found again in the
prompt, are tags. So decoders and encoders are trained on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumen.core.errors import TrainError
from tumen.data import Codec, Shards
from tumen.language import JOINT, is_cjk

IGNORED = -1  # label of what is not learned
SPACE = "▁"
CJK_LEADS = range(0xE3, 0xF0)  # first bytes of a CJK character in UTF-8

Array = NDArray[Any]


@dataclass(frozen=True)
class LabelledSentences:
    """Sentences of a split, and what an encoder says of them.

    Attributes:
        prompts: shards of the sentences alone.
        languages, intents: of each sentence, (N,).
        closed: place of each closed slot's value among its outputs, 0 for none, -1 where the intent
            has no such slot, (N, closed slots).
        tags: of every token of `prompts`, -1 inside of a word, (tokens,).
        lost: copied runs that are not words of their sentence.
    """

    prompts: Shards
    languages: Array
    intents: Array
    closed: Array
    tags: Array
    lost: int


def labelled(shards: Shards, codec: Codec) -> LabelledSentences:
    """Return sentences and labels of a split.

    Raises:
        TrainError: the vocabulary has no token of its own for a piece of an action.
    """
    reader = _LabelReader(codec)
    starts = np.asarray(shards.starts)
    answers = np.asarray(shards.answers)
    is_prompt = _prompt_places(shards, reader)
    ends = np.cumsum(np.add.reduceat(is_prompt.astype(np.int64), starts[:-1]))
    prompt_starts = np.concatenate((np.zeros(1, np.int64), ends))
    tokens = np.asarray(shards.tokens)[is_prompt]
    tags = np.where(reader.begins[tokens], 0, IGNORED).astype(np.int32)
    labels = codec.ontology.labels
    count = len(answers)
    languages = np.zeros(count, np.int64)
    intents = np.zeros(count, np.int64)
    closed = np.full((count, len(labels.choices)), IGNORED, np.int64)
    for number in range(count):
        answer = shards.tokens[answers[number] : starts[number + 1]].tolist()
        place = slice(prompt_starts[number], prompt_starts[number + 1])
        languages[number], intents[number] = reader.head(answer)
        closed[number] = reader.closed(answer, int(intents[number]))
        reader.tag(tokens[place].tolist(), answer, tags[place])
    prompts = Shards(tokens, prompt_starts, ends)
    return LabelledSentences(prompts, languages, intents, closed, tags, reader.lost)


def _prompt_places(shards: Shards, reader: _LabelReader) -> Array:
    """Return which tokens of a split an encoder reads, (tokens,).

    A learned vocabulary puts a lone space before a sentence that begins with a CJK character; a
    runner, which encodes unit by unit, does not.
    """
    starts = np.asarray(shards.starts)
    answers = np.asarray(shards.answers)
    spans = np.stack((answers - starts[:-1], starts[1:] - answers), axis=1)
    places = np.repeat(np.tile([True, False], len(answers)), spans.ravel())
    second = starts[:-1] + 1
    lone = np.asarray(shards.tokens)[second] == reader.space
    lone &= (answers - second > 1) & reader.begins[shards.tokens[second + 1]]
    places[second[lone]] = False
    return places


class _LabelReader:
    """Reads labels off actions in one vocabulary.

    Attributes:
        begins: whether a token begins a unit, by id.
        lost: runs that were not found so far.
    """

    def __init__(self, codec: Codec) -> None:
        labels = codec.ontology.labels
        one = {piece: ids[0] for piece, ids in codec.structure.items() if len(ids) == 1}
        if len(one) < len(codec.ontology.structure_tokens()):
            raise TrainError(
                "an encoder needs a token for each piece of an action: set tokenizer.pieces = true"
            )
        self.codec = codec
        self.languages = {one[f'{{"lang":"{lang}"']: at for at, lang in enumerate(labels.languages)}
        self.intents = {one[f',"intent":"{name}"']: at for at, name in enumerate(labels.intents)}
        self.values: dict[int, tuple[int, int]] = {}  # token -> (closed slot, its value's place)
        for slot, (name, (_, values)) in enumerate(labels.choices.items()):
            for at, value in enumerate(values, start=1):
                self.values[one[f',"{name}":"{value}"']] = (slot, at)
        self.copied = {one[f',"{slot}":"']: tag for slot, tag in labels.tags.items()}
        self.quote = one['"']
        self.joint = one.get(JOINT, -1)
        texts = codec.token_texts()
        self.begins = np.array([begins_unit(text) for text in texts])
        self.space = texts.index(SPACE) if SPACE in texts else -1
        self.possible = _possible(codec)
        self.lost = 0

    def head(self, answer: Sequence[int]) -> tuple[int, int]:
        """Return the language and the intent of an action."""
        return self.languages[answer[0]], self.intents[answer[1]]

    def closed(self, answer: Sequence[int], intent: int) -> Array:
        """Return the values of the closed slots."""
        found = self.possible[intent].copy()
        for token in answer:
            if token in self.values:
                slot, value = self.values[token]
                found[slot] = value
        return found

    def tag(self, prompt: list[int], answer: Sequence[int], tags: Array) -> None:
        """Write the tags of the copied runs into `tags`, which begins as outside of all slots."""
        begin = 0
        run: list[int] = []
        for token in answer:
            if token in self.copied:
                begin = self.copied[token]
                run = []
            elif begin and token in (self.quote, self.joint):
                self._mark(prompt, run, begin, tags)
                run = []
                begin = begin if token == self.joint else 0
            elif begin:
                run.append(token)

    def _mark(self, prompt: list[int], run: list[int], begin: int, tags: Array) -> None:
        """Tag the first place of a run that is not tagged yet."""
        length = len(run)
        if not length:
            return
        last = len(prompt) - 1  # the separator
        for start in range(1, last - length + 1):
            if prompt[start : start + length] != run:
                continue
            end = start + length
            part = tags[start:end]
            whole = end == last or tags[end] != IGNORED  # not the beginning of a longer word
            free = part[0] == 0 and not (part > 0).any()
            if whole and free:
                part[part == 0] = begin + 1
                part[0] = begin
                return
        self.lost += 1


def _possible(codec: Codec) -> Array:
    """Return (intents, closed slots): 0 where an intent has the slot, -1 elsewhere."""
    labels = codec.ontology.labels
    rows = [
        [0 if slot in slots else IGNORED for slot in labels.choices]
        for slots in labels.intents.values()
    ]
    return np.array(rows, np.int64).reshape(len(rows), len(labels.choices))


def begins_unit(text: str) -> bool:
    """Whether a token begins a unit: a word with its space, or a CJK character.

    A character outside of the vocabulary is its bytes; that of a CJK character begins one.
    """
    if text.startswith("<0x"):
        return int(text[3:5], 16) in CJK_LEADS
    return text.startswith(SPACE) or (len(text) == 1 and is_cjk(text))
