"""Paragraphs in three languages, and random ones that read like text."""

from __future__ import annotations

import json
import random
from pathlib import Path

PARAGRAPHS = {
    "en": (
        "The old lighthouse keeper climbed the narrow stairs every evening to light the great lamp above the bay. Ships from "
        "distant harbours trusted its beam, and nobody in the village could remember a night without it. When the storm of last "
        "winter tore away the roof, the keeper carried a lantern up by hand and stood beside it until morning came, for he knew "
        "that a single fishing boat was still somewhere out between the rocks and the open water of the northern channel."
    ),
    "de": (
        "Der alte Leuchtturmwärter stieg jeden Abend die enge Treppe hinauf, um die große Lampe über der Bucht anzuzünden. Schiffe "
        "aus fernen Häfen verließen sich auf ihr Licht, und niemand im Dorf erinnerte sich an eine Nacht ohne sie. Als der Sturm im "
        "letzten Winter das Dach fortriss, trug der Wärter eine Laterne von Hand hinauf und blieb bis zum Morgen bei ihr stehen, "
        "denn er wusste, dass noch ein einziges Fischerboot irgendwo zwischen den Felsen und dem offenen Wasser unterwegs war."
    ),
    "zh": (
        "老灯塔看守人每天晚上沿着狭窄的楼梯爬上去，点亮海湾上方的大灯。来自远方港口的船只都信赖它的光芒，村里没有人记得哪一个夜晚没有灯光。"
        "去年冬天的暴风雨掀走了屋顶，看守人亲手提着灯笼走上塔顶，一直站到天亮，因为他知道还有一条渔船在礁石和北方航道的开阔水域之间漂流。"
    ),
}
OTHERS = {
    "en": "A good bread needs little more than flour, water, salt and patience, yet every baker in this town swears by another way. "
    "Some let the dough rest for a whole day in the cold cellar, others fold it each hour and bake it before the sun is up. My "
    "grandmother measured nothing at all; she pressed a thumb into the dough, watched how slowly it came back, and then decided.",
    "de": "Ein gutes Brot braucht kaum mehr als Mehl, Wasser, Salz und Geduld, doch jeder Bäcker dieser Stadt schwört auf einen anderen "
    "Weg. Manche lassen den Teig einen ganzen Tag im kalten Keller ruhen, andere falten ihn stündlich und backen vor Sonnenaufgang. "
    "Meine Großmutter maß überhaupt nichts; sie drückte den Daumen hinein und sah zu, wie langsam der Teig zurückkam.",
    "zh": "好面包只需要面粉、清水、食盐和耐心，可是镇上每一位面包师都坚持自己的方法。有人把面团放在阴凉的地窖里醒一整天，"
    "有人每个小时折叠一次，赶在太阳升起之前送进烤炉。我的祖母从来不用秤，她用拇指按一下面团，看它慢慢弹回来，然后才作决定。",
}


def paragraph(rng: random.Random, words: int = 80) -> str:
    """Random syllables: like no other paragraph, good enough for every filter."""
    syllables = [
        "ka",
        "ro",
        "min",
        "tel",
        "su",
        "ver",
        "da",
        "lo",
        "pin",
        "gra",
        "he",
        "mu",
        "sto",
        "wi",
        "ne",
    ]
    return " ".join(
        "".join(rng.choice(syllables) for _ in range(rng.choice((1, 2, 2, 3))))
        for _ in range(words)
    )


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8"
    )
    return path
