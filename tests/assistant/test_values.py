"""Words into values."""

import json
from pathlib import Path

import pytest

from tumen.assistant.values import Unknown, Values
from tumen.assistant.values.numbers import read_number
from tumen.core.errors import ArtifactError

VALUES = Values()


@pytest.mark.parametrize(
    ("slot", "lang", "words", "value"),
    [
        ("brightness", "en", "eighty", 80),
        ("brightness", "en", "80 %", 80),
        ("brightness", "en", "80 percent", 80),
        ("brightness", "en", "half", 50),
        ("brightness", "en", "max", 100),
        ("brightness", "en", "three quarters", 75),
        ("brightness", "en", "the minimum", 1),
        ("brightness", "zh", "百分之八十", 80),
        ("brightness", "zh", "八十", 80),
        ("brightness", "zh", "一半", 50),
        ("brightness", "zh", "最亮", 100),
        ("brightness", "zh", "四分之三", 75),
        ("brightness", "de", "fünfzig prozent", 50),
        ("brightness", "de", "die hälfte", 50),
        ("brightness", "de", "maximal", 100),
        ("volume", "zh", "八成", 80),
        ("volume", "en", "zero", 0),
        ("position", "zh", "百分之五十", 50),
        ("percentage", "en", "low", 33),
        ("percentage", "zh", "高速", 100),
        ("temperature", "en", "21.5", 21.5),
        ("temperature", "en", "twenty one point five degrees", 21.5),
        ("temperature", "en", "twenty-one", 21),
        ("temperature", "en", "minus five", -5),
        ("temperature", "en", "70 ° f", 21),
        ("temperature", "en", "68 degrees fahrenheit", 20),
        ("temperature", "en", "2700 kelvin", 2700),
        ("temperature", "en", "2,700 k", 2700),
        ("temperature", "en", "twenty seven hundred", 2700),
        ("temperature", "en", "warm white", 2700),
        ("temperature", "zh", "二十六度", 26),
        ("temperature", "zh", "26 度", 26),
        ("temperature", "zh", "二十一点五", 21.5),
        ("temperature", "zh", "零下五度", -5),
        ("temperature", "de", "zweiundzwanzig", 22),
        ("temperature", "de", "21,5 grad", 21.5),
        ("temperature", "de", "einundzwanzig komma fünf grad", 21.5),
        ("temperature", "de", "2.700", 2700),
        ("temperature", "de", "zweitausendsiebenhundert", 2700),
        ("temperature", "en", "half an", 0.5),
        ("temperature", "en", "one and a half", 1.5),
        ("temperature", "en", "an", 1),
        ("temperature", "de", "anderthalb", 1.5),
        ("temperature", "de", "zweieinhalb", 2.5),
        ("temperature", "de", "eine halbe", 0.5),
        ("temperature", "zh", "两个半", 2.5),
        ("temperature", "zh", "半", 0.5),
        ("temperature", "zh", "一个半", 1.5),
        ("temperature", "en", "one hundred and five", 105),
        ("temperature", "de", "eine", 1),
        ("temperature", "zh", "两百五", 250),
        ("color", "en", "light blue", "skyblue"),
        ("color", "en", "red colour", "red"),
        ("color", "zh", "红色", "red"),
        ("color", "zh", "蓝", "blue"),
        ("color", "de", "rotes", "red"),
        ("color", "de", "grüne", "green"),
        ("item", "en", "oat  milk", "oat milk"),
        ("zone", "de", "zu hause", "home"),
        ("brightness", "de", "eighty", 80),
    ],
)
def test_a_value_is_read(slot: str, lang: str, words: str, value: float | str) -> None:
    assert VALUES.read(slot, words, lang) == value


@pytest.mark.parametrize(
    ("slot", "words"),
    [
        ("brightness", "loud"),
        ("color", "blurple"),
        ("temperature", "ein paar"),
        ("temperature", ""),
        ("temperature", "个"),
    ],
)
def test_what_is_no_value_is_unknown(slot: str, words: str) -> None:
    for lang in ("en", "zh", "de"):
        assert VALUES.read(slot, words, lang) == Unknown(slot, words)


@pytest.mark.parametrize("lang", ["en", "zh", "de"])
def test_every_spelled_number_to_a_hundred_comes_back(lang: str) -> None:
    from unicode_rbnf import RbnfEngine

    engine = RbnfEngine.for_language(lang)
    for number in range(1, 101):
        assert read_number(engine.format_number(number).text, lang) == number


def test_a_bundles_lexicon_is_asked_first() -> None:
    values = Values({"en": {"brightness": {"cosy": 20, "max": 90}, "color": {"hulk": "green"}}})
    assert values.read("brightness", "Cosy", "en") == 20
    assert values.read("brightness", "max", "en") == 90
    assert values.read("color", "hulk", "en") == "green"
    assert values.read("brightness", "half", "en") == 50


def test_a_lexicon_file(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    path.write_text(json.dumps({"zh": {"color": {"红色": "red"}}}), encoding="utf-8")
    assert Values.load(path).read("color", "红色", "zh") == "red"
    for damaged in ("[]", "{", '{"en": 1}', '{"en": {"color": {"red": null}}}', "\ud800"):
        path.write_bytes(damaged.encode("utf-8", "surrogatepass"))
        with pytest.raises(ArtifactError, match=r"values\.json"):
            Values.load(path)
    with pytest.raises(ArtifactError, match="missing"):
        Values.load(tmp_path / "none.json")
