"""Numbers and time spans from words and digits, in every language."""

from __future__ import annotations

import pytest

from tumen.assistant.values.number_words import whole_number
from tumen.assistant.values.numbers import read_number
from tumen.assistant.values.time_spans import read_span


@pytest.mark.parametrize(
    ("words", "lang", "number"),
    [
        # digits
        ("0", "en", 0),
        ("80", "en", 80),
        ("+5", "en", 5),
        ("-5", "en", -5),
        ("- 5", "en", -5),
        ("21.5", "en", 21.5),
        ("21,5", "de", 21.5),
        ("21,5", "en", 21.5),
        # thousands: a comma, in German a point
        ("2,700", "en", 2700),
        ("2.700", "de", 2700),
        ("2.700", "en", 2.7),
        ("2,700", "de", 2.7),
        ("1,234,567", "en", 1234567),
        ("12,34", "en", 12.34),
        # parts
        ("1/2", "en", 0.5),
        ("3 / 4", "en", 0.75),
        ("2 and a half", "en", 2.5),
        ("2 and half", "en", 2.5),
        ("2半", "zh", 2.5),
        ("2 und einhalb", "de", 2.5),
        # units are dropped
        ("80 %", "en", 80),
        ("80%", "en", 80),
        ("80 percent", "en", 80),
        ("80 per cent", "en", 80),
        ("21 degrees celsius", "en", 21),
        ("21 ° c", "en", 21),
        ("70 f", "en", 70),
        ("2700 k", "en", 2700),
        ("2700k", "en", 2700),
        ("20 minutes", "en", 20),
        ("50 prozent", "de", 50),
        ("22 grad", "de", 22),
        ("3 stunden", "de", 3),
        ("26度", "zh", 26),
        ("26摄氏度", "zh", 26),
        ("5分钟", "zh", 5),
        ("百分之80", "zh", 80),
    ],
)
def test_digits(words: str, lang: str, number: float) -> None:
    assert read_number(words, lang) == number


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("zero", 0),
        ("eighty", 80),
        ("Eighty", 80),
        ("twenty-one", 21),
        ("twenty one", 21),
        ("one hundred", 100),
        ("a hundred", 100),
        ("hundred", 100),
        ("one hundred and five", 105),
        ("a hundred five", 105),
        ("two hundred and fifty", 250),
        ("nine hundred ninety-nine", 999),
        ("three thousand", 3000),
        ("twenty seven hundred", 2700),
        ("twenty seven hundred and fifty", 2750),
        ("twenty seven hundred fifty", 2750),
        ("a dozen", 12),
        ("a couple", 2),
        ("the eighty", 80),
        ("minus five", -5),
        ("negative twenty one", -21),
        ("half", 0.5),
        ("half an", 0.5),
        ("a quarter of an", 0.25),
        ("three quarters", 0.75),
        ("three quarters of an", 0.75),
        ("a third", 1 / 3),
        ("minus a half", -0.5),
        ("two and a half", 2.5),
        ("one and half", 1.5),
        ("twenty one point five", 21.5),
        ("zero point two five", 0.25),
        ("eighty percent", 80),
        ("twenty one degrees", 21),
        ("five degrees fahrenheit", 5),
    ],
)
def test_english_words(words: str, number: float) -> None:
    assert read_number(words, "en") == pytest.approx(number)
    # whoever speaks German or Chinese is understood as well
    assert read_number(words, "de") == pytest.approx(number)
    assert read_number(words, "zh") == pytest.approx(number)


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("null", 0),
        ("eins", 1),
        ("eine", 1),
        ("zwo", 2),
        ("fünf", 5),
        ("zweiundzwanzig", 22),
        ("zwei und zwanzig", 22),
        ("hundert", 100),
        ("einhundert", 100),
        ("hundertfünf", 105),
        ("zweihundertfünfzig", 250),
        ("zweitausendsiebenhundert", 2700),
        ("minus fünf", -5),
        ("halb", 0.5),
        ("anderthalb", 1.5),
        ("eineinhalb", 1.5),
        ("zweieinhalb", 2.5),
        ("zwei und einhalb", 2.5),
        ("dreiviertel", 0.75),
        ("zwei drittel", 2 / 3),
        ("einundzwanzig komma fünf", 21.5),
        ("fünfzig prozent", 50),
        ("zwanzig grad", 20),
    ],
)
def test_german_words(words: str, number: float) -> None:
    assert read_number(words, "de") == pytest.approx(number)
    assert read_number(words, "en") == pytest.approx(number)


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("零", 0),
        ("一", 1),
        ("两", 2),
        ("十", 10),
        ("二十六", 26),
        ("一百", 100),
        ("一百零五", 105),
        ("两百五", 250),
        ("二百五十", 250),
        ("九百九十九", 999),
        ("三千", 3000),
        ("百分之八十", 80),
        ("百分之五", 5),
        ("八成", 0.8),
        ("四分之三", 0.75),
        ("二分之一", 0.5),
        ("半", 0.5),
        ("两个半", 2.5),
        ("一个半", 1.5),
        ("二十一点五", 21.5),
        ("零下五", -5),
        ("负十", -10),
        ("二十六度", 26),
        ("五个", 5),
    ],
)
def test_chinese_words(words: str, number: float) -> None:
    for lang in ("zh", "en", "de"):
        assert read_number(words, lang) == pytest.approx(number)


@pytest.mark.parametrize(
    "words",
    [
        "",
        " ",
        "loud",
        "minus",
        "-",
        "%",
        "percent",
        "1/0",
        "1,2,3",
        "1.2.3",
        "twenty point",
        "twenty point eleven",
        "point five",
        "twenty hundred hundred",
        "twenty seven hundred and two hundred",
        "ein paar",
        "einhalbzwei",
        "分之",
        "零分之三",
        "点五",
        "二十点十",
        "成",
        "个",
        "百分之",
    ],
)
def test_words_that_are_no_number(words: str) -> None:
    for lang in ("en", "de", "zh"):
        assert read_number(words, lang) is None


@pytest.mark.parametrize(
    ("words", "lang", "number"),
    [
        ("nine thousand nine hundred fifty", "en", 9950),
        ("ten thousand", "en", 10_000),
        ("one thousand and one", "en", None),
        ("zehntausend", "de", 10_000),
        ("eintausend", "de", 1000),
        ("tausend", "de", 1000),
        ("一万", "zh", 10_000),
        ("九百五", "zh", 950),
        ("eighty", "de", None),
        ("achtzig", "en", None),
        ("八十", "en", None),
    ],
)
def test_whole_numbers_of_one_language(words: str, lang: str, number: int | None) -> None:
    folded = words.replace("ü", "u")
    assert whole_number(folded, lang) == number


@pytest.mark.parametrize(
    ("words", "lang", "seconds"),
    [
        # one unit
        ("five minutes", "en", 300),
        ("5 minutes", "en", 300),
        ("5 min", "en", 300),
        ("a minute", "en", 60),
        ("an hour", "en", 3600),
        ("one hour", "en", 3600),
        ("90 seconds", "en", 90),
        ("ninety secs", "en", 90),
        ("2 hrs", "en", 7200),
        ("half an hour", "en", 1800),
        ("a quarter of an hour", "en", 900),
        ("three quarters of an hour", "en", 2700),
        ("1.5 hours", "en", 5400),
        ("one and a half hours", "en", 5400),
        # a half after the unit
        ("an hour and a half", "en", 5400),
        ("two minutes and a half", "en", 150),
        # several units
        ("1 hour 5 minutes", "en", 3900),
        ("one hour and five minutes", "en", 3900),
        ("1 hour, 5 minutes and 10 seconds", "en", 3910),
        ("fifty hours and 44 minutes", "en", 182_640),
        # words around the number
        ("5 more minutes", "en", 300),
        ("two full hours", "en", 7200),
        ("10 extra seconds", "en", 10),
        # German
        ("eine stunde", "de", 3600),
        ("zwei stunden", "de", 7200),
        ("einer minute", "de", 60),
        ("eine halbe stunde", "de", 1800),
        ("eine dreiviertel stunde", "de", 2700),
        ("anderthalb stunden", "de", 5400),
        ("eine stunde und eine halbe", "de", 5400),
        ("eine stunde und zehn minuten", "de", 4200),
        ("5 min und 10 sek", "de", 310),
        ("zwei weitere minuten", "de", 120),
        ("zehn minuten mehr", "de", None),
        # Chinese
        ("五分钟", "zh", 300),
        ("5分", "zh", 300),
        ("一小时", "zh", 3600),
        ("两个小时", "zh", 7200),
        ("两个半小时", "zh", 9000),
        ("一个钟头", "zh", 3600),
        ("半小时", "zh", 1800),
        ("一刻钟", "zh", 900),
        ("三刻钟", "zh", 2700),
        ("一小时零五分钟", "zh", 3900),
        ("一小时五分钟十秒", "zh", 3910),
        ("两分钟半", "zh", 150),
        ("十秒钟", "zh", 10),
        # no time span
        ("", "en", None),
        ("soon", "en", None),
        ("five", "en", None),
        ("minutes", "en", None),
        ("some minutes", "en", None),
        ("five minutes later", "en", None),
        ("five minutes loud seconds", "en", None),
        ("hours five", "en", None),
        ("and a half", "en", None),
    ],
)
def test_time_spans(words: str, lang: str, seconds: float | None) -> None:
    assert read_span(words, lang) == seconds
