"""Titles, descriptions, search queries and reviews in English and Chinese.

A description shows occasion, origin and voice, each by one of several wordings per language, and names
neither looks (colour, pattern, finish) nor brand, price, sound or motion. Adjective, trade name and material
detail are noise that carries no taste.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

NOUN = {
    "vase": ("vase", "花瓶"),
    "mug": ("mug", "马克杯"),
    "lamp": ("lamp", "台灯"),
    "tote": ("tote bag", "手提袋"),
    "bowl": ("bowl", "大碗"),
    "cushion": ("cushion", "靠垫"),
    "bottle": ("bottle", "水瓶"),  # in no catalogue, only in a batch with a new category
}
ADJECTIVE = (
    ("small", "小巧的"),
    ("large", "大号的"),
    ("lightweight", "轻便的"),
    ("sturdy", "结实的"),
    ("simple", "简约的"),
    ("classic", "经典的"),
    ("compact", "紧凑的"),
    ("generous", "大容量的"),
)
TRADE_NAME = (
    ("Arlo", "阿洛"),
    ("Bexley", "贝利"),
    ("Cato", "卡托"),
    ("Delphi", "德菲"),
    ("Elmo", "艾莫"),
    ("Fenn", "芬恩"),
    ("Greta", "葛蕾"),
    ("Halden", "哈登"),
    ("Iris", "伊瑞"),
    ("Jovi", "乔维"),
    ("Kepler", "开普"),
    ("Lotta", "洛塔"),
    ("Miro", "米罗"),
    ("Nell", "奈尔"),
    ("Otis", "奥蒂"),
    ("Petra", "佩特"),
    ("Quill", "奎尔"),
    ("Romy", "罗米"),
    ("Sten", "斯坦"),
    ("Tilda", "蒂达"),
)
DETAIL = (
    (("with a linen trim", "finished with flax linen", "linen detail"), ("配亚麻边饰", "点缀亚麻", "亚麻细节")),
    (("with a brass fitting", "finished with brass", "brass detail"), ("配铜质配件", "点缀铜饰", "铜质细节")),
    (("with a leather tab", "finished with cowhide", "leather detail"), ("配皮革标签", "点缀牛皮", "皮革细节")),
    (("with a wool lining", "finished with merino", "wool detail"), ("配羊毛内衬", "点缀羊毛", "羊毛细节")),
    (("with a glass bead", "finished with crystal", "glass detail"), ("配玻璃珠", "点缀水晶", "玻璃细节")),
    (("with a felt foot", "finished with felt", "felt detail"), ("配毛毡底垫", "点缀毛毡", "毛毡细节")),
    (("with a steel pin", "finished with steel", "steel detail"), ("配钢质扣件", "点缀精钢", "钢质细节")),
    (("with a silk cord", "finished with silk", "silk detail"), ("配丝绳", "点缀真丝", "丝质细节")),
)
OCCASION = {
    "wedding": (
        ("a wedding present", "a gift for the bride and groom", "the marriage ceremony", "newlyweds"),
        ("新婚礼物", "送给新郎新娘", "婚礼仪式", "新婚夫妇"),
    ),
    "camping": (
        ("a camping trip", "nights in a tent outdoors", "hikes into the wilderness", "evenings around the campfire"),
        ("露营旅行", "户外帐篷之夜", "荒野徒步", "篝火边的夜晚"),
    ),
    "office": (
        ("the office desk", "long days at work", "the meeting room", "a colleague at the company"),
        ("办公桌", "漫长的工作日", "会议室", "公司里的同事"),
    ),
    "children": (
        ("a child's birthday", "the kids' playroom", "toddlers and their toys", "the nursery of little ones"),
        ("孩子的生日", "儿童游戏房", "小朋友和玩具", "宝宝的房间"),
    ),
    "dinner": (
        ("a dinner party", "serving guests at the table", "a family feast", "an evening meal with friends"),
        ("晚宴聚会", "在餐桌上招待客人", "家庭聚餐", "和朋友共进晚餐"),
    ),
    "meditation": (
        ("yoga and meditation", "mindful breathing", "a corner for relaxation", "a restful yoga session"),
        ("瑜伽与冥想", "正念呼吸", "放松身心的角落", "舒缓的瑜伽练习"),
    ),
}
ORIGIN = {
    "japan": (
        ("made in Japan", "from a workshop in Kyoto", "by Japanese craftspeople", "from a studio near Osaka"),
        ("日本制造", "来自京都的工坊", "出自日本匠人之手", "来自大阪附近的工作室"),
    ),
    "italy": (
        ("made in Italy", "from a studio in Tuscany", "by Italian artisans", "from a family shop in Florence"),
        ("意大利制造", "来自托斯卡纳的工作室", "出自意大利匠人之手", "来自佛罗伦萨的家庭小店"),
    ),
    "mexico": (
        ("made in Mexico", "from a village in Oaxaca", "by Mexican makers", "from a market in Puebla"),
        ("墨西哥制造", "来自瓦哈卡的村庄", "出自墨西哥手艺人之手", "来自普埃布拉的集市"),
    ),
    "china": (
        ("made in China", "from the kilns of Jingdezhen", "by Chinese masters", "from a courtyard in Suzhou"),
        ("中国制造", "来自景德镇", "出自中国大师之手", "来自苏州的院落"),
    ),
    "sweden": (
        ("made in Sweden", "from a design house in Stockholm", "by Swedish designers", "from an island off Gothenburg"),
        ("瑞典制造", "来自斯德哥尔摩的设计所", "出自瑞典设计师之手", "来自哥德堡外的小岛"),
    ),
    "morocco": (
        ("made in Morocco", "from the medina of Fez", "by Moroccan hands", "from a souk in Marrakesh"),
        ("摩洛哥制造", "来自菲斯老城", "出自摩洛哥匠人之手", "来自马拉喀什的集市"),
    ),
}
VOICE = {
    "poetic": (
        (
            "Like mist over a lake at dawn: {x}.",
            "A whisper of memory lives in it, {x}.",
            "Where dusk gathers and dreams begin, {x}.",
            "As tender as the first snow, {x}.",
        ),
        ("如黎明湖上的薄雾，{x}。", "回忆在其中低语，{x}。", "暮色聚拢，梦由此起，{x}。", "温柔如初雪，{x}。"),
    ),
    "technical": (
        (
            "Specification: {x}. Tolerance 0.2 mm.",
            "Product data: {x}. Tested to a load of 40 kg.",
            "Technical sheet: {x}. Certified to ISO 9001.",
            "Measured parameters: {x}. Weight deviation under 3 %.",
        ),
        (
            "规格：{x}。公差0.2毫米。",
            "产品参数：{x}。承重测试40公斤。",
            "技术说明：{x}。通过ISO 9001认证。",
            "测量数据：{x}。重量偏差低于3%。",
        ),
    ),
    "playful": (
        (
            "Yippee! {x} - how much fun is that?",
            "Psst, hey you! {x}. Giggles guaranteed!",
            "Ta-da! {x}. Come on, let's play!",
            "Boom! {x}, and a silly grin for free!",
        ),
        (
            "耶！{x}，是不是超好玩？",
            "嘿，说你呢！{x}，保证笑出声！",
            "当当当！{x}，快来一起玩！",
            "哈哈！{x}，附赠傻笑一个！",
        ),
    ),
    "luxury": (
        (
            "An exclusive masterpiece: {x}, for the discerning few.",
            "Timeless prestige: {x}, in a numbered edition.",
            "Exquisite elegance: {x}, reserved for connoisseurs.",
            "The height of refinement: {x}, by private appointment.",
        ),
        (
            "尊享杰作：{x}，只献给少数知音。",
            "永恒的尊贵：{x}，限量编号。",
            "极致优雅：{x}，专为鉴赏家珍藏。",
            "臻于至善的品位：{x}，仅限私人预约。",
        ),
    ),
}
BODY = (
    ("a {a} {n} for {o}, {r}, {d}", "{n}, {a}, {d}, {r}, meant for {o}", "{r}, this {a} {n}, {d}, suits {o}"),
    ("一款{a}{n}，适合{o}，{r}，{d}", "{r}，{a}{n}，{d}，为{o}而设计", "{a}{n}，{d}，{r}，最宜{o}"),
)
TITLE = (("{t} {n}", "{t}, the {a} {n}", "The {a} {n} {t}"), ("{t}{n}", "{t}·{a}{n}", "{a}{n}“{t}”"))
QUERY = (
    ("{n} for {o}", "{o} {n}", "{n} {r}", "{n} for {o} {r}"),
    ("适合{o}的{n}", "{o} {n}", "{n} {r}", "{r} {n} {o}"),
)
REVIEW = {
    1: (
        ("Not for me at all, sent it back.", "Disappointed, would not buy it again."),
        ("完全不适合我，已退货。", "很失望，不会再买。"),
    ),
    2: (("Less than I hoped for.", "Arrived late and feels cheap."), ("没有想象中好。", "到得晚，做工一般。")),
    3: (("It is okay, nothing special.", "Does the job."), ("还可以，没什么特别。", "够用。")),
    4: (("Very nice, happy with it.", "Good buy, well packed."), ("很不错，满意。", "值得买，包装很好。")),
    5: (("Love it, exactly my taste!", "Wonderful, would buy it again."), ("太喜欢了，正合我意！", "非常棒，会再买。")),
}


def _one(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def describe(
    rng: np.random.Generator, language: int, category: str, occasion: str, origin: str, voice: str
) -> tuple[str, str]:
    """A title (names no planted factor) and a description in the language (0 English, 1 Chinese)."""
    noun = NOUN[category][language]
    adjective = ADJECTIVE[int(rng.integers(len(ADJECTIVE)))][language]
    trade = TRADE_NAME[int(rng.integers(len(TRADE_NAME)))][language]
    body = _one(rng, BODY[language]).format(
        a=adjective,
        n=noun,
        o=_one(rng, OCCASION[occasion][language]),
        r=_one(rng, ORIGIN[origin][language]),
        d=_one(rng, DETAIL[int(rng.integers(len(DETAIL)))][language]),
    )
    title = _one(rng, TITLE[language]).format(a=adjective, n=noun, t=trade)
    return title[0].upper() + title[1:], _one(rng, VOICE[voice][language]).format(x=body)


def query(rng: np.random.Generator, language: int, wanted: Mapping[str, str]) -> str:
    """A search query for a category and an occasion or an origin or both (keys of ``wanted``)."""
    place, event = wanted.get("origin"), wanted.get("occasion")
    if place and event:
        template = QUERY[language][3]
    elif place:
        template = QUERY[language][2]
    else:
        template = QUERY[language][int(rng.integers(2))]
    return template.format(
        n=NOUN[wanted["category"]][language],
        o=_one(rng, OCCASION[event][language]) if event else "",
        r=_one(rng, ORIGIN[place][language]) if place else "",
    )


def review(rng: np.random.Generator, language: int, stars: int) -> str:
    """A short review that fits the number of stars (1 to 5)."""
    return _one(rng, REVIEW[stars][language])


def vocabulary() -> list[str]:
    """Every phrase this module can write (for the test that none names another modality's factor)."""
    tables = (NOUN, ADJECTIVE, TRADE_NAME, DETAIL, OCCASION, ORIGIN, VOICE, BODY, TITLE, QUERY, REVIEW)

    def flat(x: Any) -> list[str]:
        if isinstance(x, str):
            return [x]
        return [s for v in (x.values() if isinstance(x, Mapping) else x) for s in flat(v)]

    return flat(tables)
