"""Invented reviews in Chinese, a few sentences each, with the kind of product that they are about.

The kind is never named: it follows from what is praised or blamed, and opinions are shared by all kinds.
"""

from __future__ import annotations

import random
from typing import Any

from .vocabulary import words

_KINDS = {
    "手机": "屏幕;电池;信号;充电速度;摄像头;铃声;触屏;系统更新;耳机接口;待机时间",
    "衣服": "面料;尺码;颜色;做工;袖子;拉链;线头;版型;领口;洗后的样子",
    "水果": "味道;新鲜程度;果皮;水分;个头;甜度;果核;成熟度;果肉;香味",
    "书籍": "纸张;印刷;翻译;故事情节;封面;作者的文笔;插图;章节安排;字体大小;装订",
    "热水器": "加热速度;水温;噪音;安装师傅;保温效果;出水量;外壳;恒温功能;耗电量;水管接头",
    "酒店": "房间;前台服务;早餐;床铺;隔音;卫生间;地理位置;窗外风景;空调;退房手续",
}
_GOOD = words("很好;非常满意;超出预期;让人放心;没什么可挑剔的;比想象中好得多;值得推荐")
_BAD = words("太差了;让人失望;不如描述的那样;有很多问题;完全不能接受;很一般;不值这个价")
_ASPECTS = (
    "{aspect}{verdict}",
    "我觉得{aspect}{verdict}",
    "{aspect}方面{verdict}",
    "家人也说{aspect}{verdict}",
    "用了几天\uff0c{aspect}{verdict}",
)
_OPENINGS = words("上周下的单;朋友推荐来的;第二次光顾了;收到以后马上试了;等了三天;趁打折买的;给父母准备的")
_CLOSINGS = words("以后还会再来;下次不会再选了;总体来说还行;希望商家改进;推荐给大家;客服态度不错;仅供参考")


def make_chinese_reviews(seed: int, size: int) -> list[dict[str, Any]]:
    """Rows of `text` and `category`, two a product.

    Args:
        seed: draws them.
        size: products of the shop.
    """
    rng = random.Random(f"chinese reviews {seed}")
    kinds = {kind: words(aspects) for kind, aspects in _KINDS.items()}
    rows = []
    for _ in range(2 * size):
        kind = rng.choice(list(kinds))
        verdicts = _GOOD if rng.random() < 0.6 else _BAD
        parts = [rng.choice(_OPENINGS)]
        for aspect in rng.sample(kinds[kind], rng.randint(1, 3)):
            parts.append(rng.choice(_ASPECTS).format(aspect=aspect, verdict=rng.choice(verdicts)))
        parts.append(rng.choice(_CLOSINGS))
        rows.append({"text": "。".join(parts) + "。", "category": kind})
    return rows
