"""Kinds: the words that name a kind of device instead of one device, in three languages.

`"blinds"` means covers of the class `blind`; `"door"` a cover, a lock or a sensor. A kind is `domains[:sense]`; the
sense is a device class, or what tells two devices of a domain apart (a television from a speaker, heating from
cooling).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tumen.home.words import forms, split


@dataclass(frozen=True)
class Kind:
    """Some domains, and a sense that narrows them."""

    domains: frozenset[str]
    sense: str = ""


STRICT = frozenset(("sensor", "binary_sensor", "switch", "input_boolean"))
"""Domains whose devices are of all sorts: a sense fits only when the device says so itself."""

NEAR = {
    "blind": "shade",
    "shade": "shade",
    "shutter": "shade",
    "curtain": "curtain",
    "garage": "door",
}
"""Senses people mix up; they count as the same when the home has nothing closer."""

GENERAL = frozenset(("thermostat",))
"""Senses every device of the domain has, though one that says so itself is preferred."""

_TABLE: dict[str, dict[str, str]] = {
    "en": {
        "light": "light|lamp|lighting|bulb|spotlight",
        "switch": "switch",
        "switch:outlet": "plug|outlet|socket|power strip",
        "fan": "fan|ventilator",
        "cover": "cover",
        "cover:blind": "blind|roller blind|venetian blind",
        "cover:curtain": "curtain|drape",
        "cover:shade": "shade|roller shade",
        "cover:shutter": "shutter|roller shutter",
        "cover:awning": "awning",
        "cover:garage": "garage door",
        "cover:gate": "gate",
        "cover,lock,binary_sensor:door": "door",
        "cover,binary_sensor:window": "window",
        "lock": "lock|deadbolt",
        "climate": "climate|hvac",
        "climate:thermostat": "thermostat",
        "climate,switch:heat": "heating|heater|radiator|underfloor heating",
        "climate:cool": "air conditioner|air conditioning|air con|aircon|ac|a c",
        "media_player": "media player|player|music|media",
        "media_player:tv": "tv|television|telly",
        "media_player:speaker": "speaker|stereo|hi fi",
        "vacuum": "vacuum|vacuum cleaner|robot vacuum|robot vacuum cleaner|hoover|roomba|robot cleaner|cleaning robot",
        "lawn_mower": "lawn mower|mower|lawnmower|robot mower",
        "todo": "list|to do list|todo list",
        "scene": "scene",
        "script": "script",
        "sensor,binary_sensor": "sensor",
        "sensor:temperature": "temperature|temp|thermometer",
        "sensor:humidity": "humidity",
        "sensor:battery": "battery",
        "binary_sensor:motion": "motion",
        "binary_sensor:smoke": "smoke|smoke detector|smoke alarm",
        "weather": "weather|forecast",
        "valve": "valve",
        "timer": "timer",
        "button": "button",
    },
    "zh": {
        "light": "灯|灯光|电灯|灯具|照明",
        "switch": "开关",
        "switch:outlet": "插座|插排|插头",
        "fan": "风扇|电扇|电风扇|吊扇",
        "cover:curtain": "窗帘|帘子",
        "cover:blind": "百叶窗|百叶帘",
        "cover:shutter": "卷帘|卷帘窗",
        "cover:shade": "遮阳帘|遮光帘",
        "cover:awning": "遮阳篷|雨篷",
        "cover:garage": "车库门",
        "cover:gate": "大铁门|院门",
        "cover,lock,binary_sensor:door": "门",
        "cover,binary_sensor:window": "窗户|窗子|窗",
        "lock": "锁|门锁",
        "climate:thermostat": "温控器|恒温器",
        "climate,switch:heat": "暖气|地暖|取暖器|加热器",
        "climate:cool": "空调|冷气",
        "media_player": "媒体播放器|播放器|音乐",
        "media_player:tv": "电视|电视机",
        "media_player:speaker": "音箱|音响|喇叭|扬声器",
        "vacuum": "扫地机器人|扫地机|吸尘器|机器人",
        "lawn_mower": "割草机|割草机器人|剪草机",
        "todo": "清单|列表",
        "scene": "场景|模式",
        "script": "脚本",
        "sensor,binary_sensor": "传感器",
        "sensor:temperature": "温度|温度计",
        "sensor:humidity": "湿度",
        "sensor:battery": "电量|电池",
        "weather": "天气",
        "valve": "阀门|阀",
        "timer": "计时器|定时器|倒计时",
        "button": "按钮",
    },
    "de": {
        "light": "licht|lampe|leuchte|beleuchtung|birne|strahler",
        "switch": "schalter",
        "switch:outlet": "steckdose|stecker|steckdosenleiste",
        "fan": "ventilator|lüfter",
        "cover:blind": "jalousie|raffstore",
        "cover:curtain": "vorhang|gardine",
        "cover:shade": "rollo|plissee",
        "cover:shutter": "rollladen|rolladen|fensterladen",
        "cover:awning": "markise",
        "cover:garage": "garagentor",
        "cover:gate": "tor|einfahrtstor|gartentor",
        "cover,lock,binary_sensor:door": "tür",
        "cover,binary_sensor:window": "fenster",
        "lock": "schloss|türschloss",
        "climate": "klima",
        "climate,switch:heat": "heizung|heizkörper|fußbodenheizung|heizlüfter",
        "climate:cool": "klimaanlage|klimagerät",
        "media_player": "mediaplayer|musik|player",
        "media_player:tv": "fernseher|fernsehgerät|fernsehen|glotze",
        "media_player:speaker": "lautsprecher|box|anlage|stereoanlage",
        "vacuum": "staubsauger|saugroboter|staubsaugerroboter|sauger|roboter",
        "lawn_mower": "rasenmäher|mähroboter|mäher|rasenroboter",
        "todo": "liste",
        "scene": "szene",
        "script": "skript",
        "sensor:temperature": "temperatur|thermometer",
        "sensor:humidity": "luftfeuchtigkeit|feuchtigkeit",
        "sensor:battery": "batterie|akku",
        "binary_sensor:motion": "bewegung|bewegungsmelder",
        "binary_sensor:smoke": "rauchmelder|rauch",
        "weather": "wetter|wettervorhersage",
        "valve": "ventil",
        "button": "taste|knopf",
    },
}


def kind_of(text: str) -> Kind:
    """The kind written as `domains[:sense]`."""
    domains, _, sense = text.partition(":")
    return Kind(frozenset(domains.split(",")), sense)


@cache
def kind_words() -> dict[str, Kind]:
    """Every kind word of three languages, its pieces written together; a word of two of them has one kind."""
    found: dict[str, Kind] = {}
    for table in _TABLE.values():
        for kind, words in table.items():
            for word in words.split("|"):
                found.setdefault("".join(split(word)), kind_of(kind))
    return found


@cache
def compound_tails() -> dict[str, str]:
    """German kind words and their inflected forms as they end a compound (`Küchenlampen`) -> the word itself."""
    tails: dict[str, str] = {}
    for words in _TABLE["de"].values():
        for word in words.split("|"):
            whole = "".join(split(word))
            tails.setdefault(whole, whole)
            for ending in ("n", "en", "er", "ern", "e", "s"):
                tails.setdefault(whole + ending, whole)
    return tails


@cache
def kind_word(word: str) -> tuple[Kind, str] | None:
    """The kind a word (pieces written together) names, and the word as the table has it; None if it names none."""
    table = kind_words()
    return next(((table[form], form) for form in (word, *forms(word)) if form in table), None)
