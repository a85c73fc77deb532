"""Training of encoders: labels are read off the shards, a killed run ends in the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.encoders import SHAPE, pieces_of, write_e5, write_hub

from tumen.core.artifact import manifest_of, verify
from tumen.core.errors import ArtifactError, InputError, TrainError
from tumen.core.shape import EncoderShape
from tumen.data import Codec, read_corpus, read_shards
from tumen.data.tokenizer import UnigramCodec, UnigramVocabulary, read_vocabulary
from tumen.decoding.encoder import EncoderReading
from tumen.formats import digest_of_start, e5_file, has_vocabulary, shape_of_start
from tumen.language import HOME, JOINT, Action, parse, units
from tumen.recipe import Train
from tumen.train import EncoderTask, Making, Method, fit, loop
from tumen.train.encoder_labels import labelled
from tumen.train.weights import read_encoder, read_final, start_encoder_from


class KilledError(Exception):
    """Stands for kill -9 at a step."""


@pytest.fixture(scope="module")
def section() -> Train:
    return Train(steps=6, batch_size=4, seq_len=96, compile=False, checkpoint_every=2, threads=1)


@pytest.fixture(scope="module")
def codec(tokenizer: Path) -> Codec:
    return Codec.load(tokenizer)


@pytest.fixture(scope="module")
def shape(codec: Codec) -> EncoderShape:
    return SHAPE.model_copy(
        update={
            "vocab_size": codec.vocab,
            "labels": codec.ontology.labels.counts,
            "hidden_dropout_prob": 0.2,
        }
    )


@pytest.fixture(scope="module")
def task(dataset: Path, codec: Codec, shape: EncoderShape) -> EncoderTask:
    return EncoderTask(dataset, codec, shape)


def unigram(sentences: list[str], folder: Path) -> UnigramVocabulary:
    found = read_vocabulary(write_e5(folder / "e5.bin", pieces_of(sentences)))
    assert isinstance(found, UnigramVocabulary)
    return found.with_tokens(HOME.structure_tokens())


def read_back(codec: Codec, prompt: list[int], tags: np.ndarray, labels: Any) -> str:
    """The action that labels mean, by the reading of a runner that is sure of them."""
    layout = codec.ontology.labels
    intent, lang, closed = labels
    sentence = np.zeros(layout.counts[0], "f4")
    sentence[lang] = sentence[len(layout.languages) + intent] = 50
    for value, (start, _) in zip(closed, layout.choices.values(), strict=True):
        sentence[start + max(value, 0)] = 50
    firsts = [at for at in range(1, len(prompt) - 1) if tags[at] >= 0]
    said = np.zeros((len(firsts), layout.counts[1]), "f4")
    said[np.arange(len(firsts)), tags[firsts]] = 50
    words = units(codec.decode(prompt[1:-1]).strip())
    assert len(words) == len(firsts)
    by_intent = np.zeros((layout.counts[2], layout.counts[1]), "f4")
    reading = EncoderReading(layout.tree())
    return "".join(piece for piece, _ in reading.read(sentence, said, by_intent, words))


@pytest.mark.parametrize("kind", ["learned", "unigram"])
def test_labels_mean_the_action_they_were_read_off(
    kind: str, corpus: Path, codec: Codec, tmp_path: Path
) -> None:
    rows = [row for row in read_corpus(corpus, "train") if len(row["sentence"]) > 1]
    used = codec
    if kind == "unigram":
        used = UnigramCodec(unigram([row["sentence"] for row in rows], tmp_path))
    from tumen.data import write_shards

    actions = [Action(**_parts(row["action"])) for row in rows]
    pairs = [
        (used.prompt(row["sentence"]), used.answer(action))
        for row, action in zip(rows, actions, strict=True)
    ]
    write_shards(tmp_path / "train", pairs, used.vocab)
    data = labelled(read_shards(tmp_path / "train"), used)
    assert data.lost <= len(rows) // 100
    right = 0
    for number, action in enumerate(actions):
        place = slice(data.prompts.starts[number], data.prompts.starts[number + 1])
        prompt = data.prompts.tokens[place].tolist()
        assert prompt == used.encoded_units(rows[number]["sentence"])[0]
        labels = (data.intents[number], data.languages[number], data.closed[number])
        wire = read_back(used, prompt, data.tags[place], labels)
        right += parse(wire) == action
    # words that stand twice may be found at their other place, which gives the same action
    assert right >= 0.99 * len(rows)


def _parts(action: dict[str, str]) -> dict[str, Any]:
    slots = {name: value for name, value in action.items() if name not in ("lang", "intent")}
    return {"intent": action["intent"], "lang": action["lang"], "slots": slots}


def trained(
    task: EncoderTask, section: Train, shape: EncoderShape, dataset: Path, out: Path
) -> None:
    method = Method(encoder=task)
    fit(section, shape, dataset, out, making=Making(seed=3, inputs="in"), method=method)


def test_killed_and_resumed_it_ends_in_the_same_bits(
    task: EncoderTask,
    section: Train,
    shape: EncoderShape,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained(task, section, shape, dataset, tmp_path / "whole")
    seen = 0
    real = loop.guard

    def guarded(*given: Any) -> None:
        nonlocal seen
        real(*given)
        seen += 1
        if seen == 5:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "guard", guarded)
        with pytest.raises(KilledError):
            trained(task, section, shape, dataset, tmp_path / "killed")
    trained(task, section, shape, dataset, tmp_path / "killed")
    assert verify(tmp_path / "killed").digest == verify(tmp_path / "whole").digest
    assert manifest_of(tmp_path / "whole").facts["steps"] == 6
    read, weights = read_encoder(tmp_path / "whole")
    assert read == shape
    assert sum(weight.numel() for weight in weights.values()) == shape.parameters()
    with pytest.raises(ArtifactError, match="is an encoder; a decoder is needed here"):
        read_final(tmp_path / "whole")


def test_a_decoder_is_no_encoder(device: Path) -> None:
    with pytest.raises(ArtifactError, match="is a decoder; an encoder is needed here"):
        read_encoder(device)


def test_both_kinds_of_files_start_the_same_way(tmp_path: Path) -> None:
    pieces = pieces_of(["turn on the light", "打开 灯"])
    file = write_e5(tmp_path / "e5.bin", pieces)
    hub = write_hub(tmp_path / "hub", pieces)
    for path in (file, hub):
        assert has_vocabulary(path)
        assert len(digest_of_start(path)) == 16
        found = read_vocabulary(path)
        assert isinstance(found, UnigramVocabulary)
        smaller = found.trimmed([" turn", "打"], 6)
        theirs = shape_of_start(path)
        assert isinstance(theirs, EncoderShape)
        shape = theirs.model_copy(
            update={"vocab_size": len(smaller.tokens), "labels": (5, 3, 2), "num_hidden_layers": 1}
        )
        weights = start_encoder_from(path, shape, (1,), smaller.rows, 0)
        assert weights["embed.weight"].shape == (len(smaller.tokens), SHAPE.hidden_size)
        assert not weights["by_intent.weight"].any()
        whole = theirs.model_copy(update={"labels": (5, 3, 2), "vocab_size": 8})
        every = start_encoder_from(path, whole, None, range(8), 0)
        assert torch.equal(every["blocks.1.up.weight"], weights["blocks.0.up.weight"])
        assert torch.equal(
            every["embed.weight"][smaller.begin], weights["embed.weight"][smaller.begin]
        )
        with pytest.raises(TrainError, match="its hidden_size is 32, the tier's 64"):
            start_encoder_from(
                path, shape.model_copy(update={"hidden_size": 64}), 1, smaller.rows, 0
            )


def test_four_bits_are_read_as_ggml_writes_them(tmp_path: Path) -> None:
    import gguf

    file = e5_file.read_e5(write_e5(tmp_path / "e5.bin", [("a", -1.0)]))
    kind, _, offset, size = file.tensors["l0.fo.w"]
    assert kind == 1
    raw = np.frombuffer(file.path.read_bytes()[offset : offset + size], np.uint8)
    expected = gguf.quants.dequantize(raw.reshape(32, -1), gguf.GGMLQuantizationType.Q4_0)
    assert np.array_equal(file.read("l0.fo.w"), expected)


@pytest.mark.parametrize("kept", [3, 40, 300, -100])
def test_a_cut_file_gets_one_line(kept: int, tmp_path: Path) -> None:
    whole = write_e5(tmp_path / "e5.bin", pieces_of(["turn on the light"])).read_bytes()
    cut = tmp_path / "cut.bin"
    cut.write_bytes(whole[:kept])
    with pytest.raises(InputError, match="no whole encoder|not a usable GGUF") as error:
        shape_of_start(cut)
    assert "\n" not in str(error.value)


def test_other_folders_get_one_line(tmp_path: Path) -> None:
    hub = write_hub(tmp_path / "hub", [("a", -1.0)])
    (hub / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(InputError, match="no Unigram vocabulary"):
        read_vocabulary(hub)
    config = (hub / "config.json").read_text()
    (hub / "config.json").write_text(config.replace('"gelu"', '"relu"'))
    with pytest.raises(InputError, match="hidden_act is 'relu'"):
        shape_of_start(hub)


def test_joined_runs_are_found_apart(tokenizer: Path, tmp_path: Path) -> None:
    """Two runs of one slot are two beginnings."""
    from tumen.data import write_shards
    from tumen.data.tokenizer import train_tokenizer
    from tumen.language import Ontology

    ontology = Ontology(languages=("en",), intents={"add": ("item",)}, several=("item",), closed={})
    sentence = "add eggs and brown bread"
    codec = Codec(train_tokenizer([sentence] * 5, 600, ontology), ontology)
    action = Action("add", "en", {"item": f"eggs{JOINT}brown bread"})
    write_shards(tmp_path / "x", [(codec.prompt(sentence), codec.answer(action))], codec.vocab)
    data = labelled(read_shards(tmp_path / "x"), codec)
    assert data.tags[data.tags >= 0].tolist() == [0, 1, 0, 1, 2]
