"""The Ray engine on a small cluster of this machine: the same rows and the same tokens as without it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.data.texts import paragraph, write_jsonl

from tumen.core.errors import InputError, LossError, MissingExtra, RecipeError, TumenError
from tumen.data import on_ray
from tumen.recipe import Data, Part

PROGRAM = """
import json, sys
from pathlib import Path
import ray
from tumen.core.errors import InputError
from tumen.recipe import Data, Tokenizer
from tumen.data import on_ray, write_corpus, write_dataset, write_tokenizer

if __name__ == "__main__":
    folder, told = Path(sys.argv[1]), {}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    on_ray.SPAN_BYTES = 100_000
    for engine in ("local", "ray"):
        section = Data.model_validate(json.loads((folder / "data.json").read_text()) | {"engine": engine})
        corpus = write_corpus(section, 0, folder / engine / "corpus", "")
        tokenizer = write_tokenizer(Tokenizer(vocab_size=700), folder / engine / "corpus", folder / engine / "tokenizer", "")
        dataset = write_dataset(folder / engine / "corpus", folder / engine / "tokenizer", folder / engine / "dataset", "", 64, engine=engine)
        told[engine] = [corpus.digest, corpus.facts, tokenizer.digest, dataset.digest, dataset.facts]
    (folder / "a" / "broken.jsonl").write_text('{"text": null}')
    try:
        write_corpus(section, 0, folder / "broken", "")
    except InputError as error:
        told["error"] = str(error)
    print(json.dumps(told))
"""


@pytest.mark.slow
def test_ray_gives_what_one_machine_gives(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = [paragraph(rng, rng.randint(35, 120)) for _ in range(300)]
    texts += texts[:40] + [f"{text} more" for text in texts[40:80]]
    rng.shuffle(texts)
    for name, some in (("a", texts[:200]), ("b", texts[200:])):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "all.jsonl", some)
    (tmp_path / "eval.txt").write_text(f"{texts[7][40:240]}\n")
    mix = tuple(
        Part(path=str(tmp_path / name), weight=weight) for name, weight in (("a", 2), ("b", 1))
    )
    (tmp_path / "data.json").write_text(
        Data(mix=mix, held_out=(str(tmp_path / "eval.txt"),)).model_dump_json()
    )
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", tmp_path],
        capture_output=True,
        text=True,
        timeout=540,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ray"] == told["local"]
    assert set(told["ray"][1]["removed"]) == {"quality: few words", "held_out", "exact", "near"}
    assert (
        told["error"]
        == f"{tmp_path}/a/broken.jsonl, row 1: its text is None, not a string; a row has a column 'text'"
    )


def test_without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tumen.data import write_corpus

    monkeypatch.setitem(sys.modules, "ray", None)
    path = write_jsonl(tmp_path / "a.jsonl", ["text"])
    with pytest.raises(MissingExtra, match=r"tumen\[ray\]"):
        write_corpus(Data(source="text", path=str(path), engine="ray"), 0, tmp_path / "corpus", "")


class Wrapped(Exception):
    """An error that carries the one that a task raised."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("a task failed")
        self.cause = cause


@pytest.mark.parametrize(
    "raised",
    [InputError("rows.jsonl: no text"), LossError("nan", 7, "the loss is NaN")],
    ids=["a text", "more than a text"],
)
def test_an_error_of_a_task_comes_back_as_it_was_raised(raised: TumenError) -> None:
    said = str(raised)
    raised.args = (f"{said}\nlines of Ray",)
    back = on_ray._unwrapped(Wrapped(Wrapped(raised)))
    assert type(back) is type(raised)
    assert str(back) == said
    assert vars(back) == vars(raised)


def test_a_recipe_keeps_all_its_faults() -> None:
    raised = RecipeError("r.toml", ["a: first", "b: second"])
    said = str(raised)
    raised.args = (f"{said}\nlines of Ray",)
    assert str(on_ray._unwrapped(Wrapped(raised))) == said


def test_an_error_of_ray_alone_is_one_line() -> None:
    back = on_ray._unwrapped(Wrapped(ValueError("x")))
    assert type(back) is TumenError
    assert str(back) == "Ray could not finish: a task failed"
