"""Shop text of the sample shop in other languages: descriptions and reviews from small grammars, unequal in size.

German has half of the documents and Indonesian a tenth, so that a temperature has something to do; Chinese is written
without spaces.
"""

from __future__ import annotations

import random
from typing import Any

_SHARES = {"de": 0.5, "es": 0.25, "zh": 0.15, "id": 0.1}
_DOCUMENTS = 1.5
"""For each product of the shop."""

_SLOTS = {
    "de": {
        "thing": "die Lampe;die Tasche;die Kanne;die Jacke;die Uhr;die Decke;die Pfanne;die Kamera;die Matte;die Box",
        "quality": "leicht;robust;sehr leise;besonders weich;gut verarbeitet;einfach zu reinigen;wasserdicht;stabil",
        "material": "Edelstahl;Baumwolle;Leder;Holz;Glas;Aluminium;Wolle;Bambus",
        "place": "in der Küche;im Büro;auf Reisen;im Garten;im Bad;beim Sport",
        "colour": "schwarz;weiß;dunkelblau;grün;grau;rot",
    },
    "es": {
        "thing": "la lámpara;la bolsa;la tetera;la chaqueta;la manta;la sartén;la cámara;la mochila;la silla;la mesa",
        "quality": "ligera;resistente;muy cómoda;bien acabada;fácil de limpiar;impermeable;más pequeña de lo esperado",
        "material": "acero;algodón;cuero;madera;vidrio;aluminio;lana;bambú",
        "place": "en la cocina;en la oficina;de viaje;en el jardín;en el baño;para el deporte",
        "colour": "negra;blanca;azul oscuro;verde;gris;roja",
    },
    "zh": {
        "thing": "台灯;背包;水壶;外套;手表;毛毯;平底锅;相机;耳机;键盘",
        "quality": "很轻;非常结实;声音很小;特别柔软;做工不错;容易清洗;可以防水;比想象的小",
        "material": "不锈钢;纯棉;真皮;实木;玻璃;铝合金;羊毛;竹子",
        "place": "厨房;办公室;旅行;花园;浴室;运动",
        "colour": "黑色;白色;深蓝色;绿色;灰色;红色",
    },
    "id": {
        "thing": "lampu meja;tas ransel;teko;jaket;jam tangan;selimut;wajan;kamera;sepatu;kipas angin",
        "quality": "ringan;kuat;sangat halus;nyaman dipakai;mudah dibersihkan;tahan air;rapi jahitannya;agak kecil",
        "material": "baja;katun;kulit;kayu;kaca;aluminium;wol;bambu",
        "place": "di dapur;di kantor;untuk perjalanan;di kebun;di kamar mandi;untuk olahraga",
        "colour": "hitam;putih;biru tua;hijau;abu-abu;merah",
    },
}
_SENTENCES = {
    "de": """Ich habe {thing} vor {number} Wochen gekauft und bin zufrieden;Leider ist {thing} nicht {quality};
Das Material ist {material} und fühlt sich gut an;Wir benutzen {thing} jeden Tag {place};
Geliefert wird {thing} in {colour} mit {number} Jahren Garantie;Für {number} Euro ist {thing} {quality};
Die Farbe {colour} passt {place} sehr gut;Nach {number} Tagen war {thing} kaputt und ich habe sie zurückgeschickt""",
    "es": """Compré {thing} hace {number} semanas y estoy contento;Por desgracia {thing} no es {quality};
El material es {material} y se nota la calidad;Usamos {thing} todos los días {place};
Se entrega en color {colour} con {number} años de garantía;Por {number} euros {thing} es {quality};
El color {colour} queda muy bien {place};A los {number} días {thing} llegó rota y la devolví""",
    "zh": """我{number}天前买了这款{thing},质量很好,{quality};可惜这个{thing}的颜色不是{colour},有点失望;
材料是{material},手感不错;我们每天在{place}用这个{thing};颜色是{colour},保修{number}年;
{number}元买的{thing},{quality},值得购买;物流很快,{thing}包装完好;用了{number}天就坏了,已经退货""",
    "id": """Saya membeli {thing} ini {number} hari lalu dan puas sekali;Sayang {thing} ini tidak {quality};
Bahannya {material} dan terasa bagus;Kami memakai {thing} setiap hari {place};
Warnanya {colour} dengan garansi {number} bulan;Dengan harga {number} ribu, {thing} ini {quality};
Pengiriman cepat dan {thing} dikemas rapi;Setelah {number} hari {thing} rusak dan saya kembalikan""",
}
_END = {"zh": "。"}


def make_multilingual(seed: int, size: int) -> list[dict[str, Any]]:
    """Rows with `text` and `language`, shuffled.

    Args:
        seed: draws another sample.
        size: products in the shop.
    """
    rng = random.Random(f"multilingual text {seed}")
    rows = []
    for language, share in _SHARES.items():
        slots = {name: found.split(";") for name, found in _SLOTS[language].items()}
        sentences = "".join(_SENTENCES[language].splitlines()).split(";")
        end = _END.get(language, ". ")
        for _ in range(max(1, round(share * _DOCUMENTS * size))):
            fill = {name: rng.choice(found) for name, found in slots.items()}
            chosen = rng.sample(sentences, rng.randint(1, 4))
            text = end.join(sentence.format(**fill, number=rng.randint(2, 60)) for sentence in chosen)
            text = (text + end).strip()
            rows.append({"text": text.replace(",", "\uff0c") if language == "zh" else text, "language": language})
    rng.shuffle(rows)
    return rows
