"""Pages of the sample web in other languages: a few sentences each, enough to be told from English."""

from __future__ import annotations

import random
from typing import Any

from .vocabulary import words

_SENTENCES = {
    "de": {
        "shop": """Jetzt in den Warenkorb legen und morgen geliefert bekommen;Der Preis beträgt {price} Euro
inklusive Mehrwertsteuer;Kostenloser Versand ab einem Bestellwert von {number} Euro;Das Gehäuse besteht
aus Edelstahl und ist spülmaschinenfest;Kunden bewerten dieses Produkt mit vier von fünf Sternen;Nur noch
{number} Stück auf Lager;Sie können den Artikel innerhalb von {number} Tagen zurückgeben""",
        "general": """Der Bürgermeister eröffnete am Samstag die neue Brücke über den Fluss;Niemand im Dorf hatte
mit so viel Schnee gerechnet;Die Ausstellung zeigt Bilder aus {number} Jahren;Am Abend saßen alle zusammen
und erzählten von früher;Der Zug hatte wieder einmal Verspätung;Im Garten blühten die ersten Rosen;Sie
schrieb ihrer Schwester einen langen Brief aus der Stadt""",
    },
    "fr": {
        "shop": """Ajoutez cet article au panier et profitez de la livraison gratuite;Le prix est de {price} euros
toutes taxes comprises;Cette machine à café existe en trois couleurs;Il ne reste que {number} exemplaires
en stock;Les clients apprécient surtout la qualité du tissu;Vous disposez de {number} jours pour nous
retourner le produit;Garantie de {number} mois offerte par le fabricant""",
        "general": """Le conseil municipal a voté hier soir le nouveau budget;Personne ne savait pourquoi la
lumière restait allumée;Pendant {number} ans il avait habité la même maison;La rivière traverse le village
et rejoint la mer;Elle se souvenait encore de la voix de son grand-père;Les enfants jouaient dans la cour
de l'école;Au printemps les oiseaux reviennent dans les marais""",
    },
    "es": {
        "shop": """Añade el producto al carrito y recíbelo mañana en casa;El precio es de {price} euros con
impuestos incluidos;Envío gratuito a partir de {number} euros;La mochila tiene {number} bolsillos y una
correa ajustable;Solo quedan {number} unidades disponibles;Los clientes destacan la calidad de la
batería;Puedes devolver el artículo en {number} días""",
        "general": """El alcalde presentó ayer el plan para el nuevo puente;Nadie recordaba un invierno tan largo
como aquel;La abuela contaba siempre la misma historia después de cenar;Durante {number} años el faro
estuvo cerrado;Los vecinos se reunieron en la plaza para hablar del río;El tren llegó tarde otra vez;En el
museo hay una sala dedicada a los mapas""",
    },
    "id": {
        "shop": """Masukkan barang ini ke keranjang dan dapatkan gratis ongkos kirim;Harga mulai dari {number} ribu
rupiah untuk satu lusin;Barang asli dengan garansi resmi selama {number} bulan;Stok tersisa {number} buah
saja;Pembeli menyukai bahan yang lembut dan jahitan yang rapi;Pesanan dikirim pada hari yang sama;Silakan
hubungi penjual sebelum membeli""",
        "general": """Warga desa berkumpul di balai untuk membahas jembatan baru;Hujan turun sejak pagi dan jalan
menjadi licin;Selama {number} tahun dia mengajar di sekolah yang sama;Anak-anak bermain di tepi sungai
sampai sore;Kakek masih ingat nama semua tetangganya;Pasar itu selalu ramai pada hari Minggu;Perahu
nelayan kembali sebelum matahari terbit""",
    },
}
LANGUAGES = tuple(_SENTENCES)


def foreign_page(rng: random.Random, domain: str, number: int) -> dict[str, Any]:
    """A `WEB_PAGE` row in one of `LANGUAGES`, a shop page or an ordinary one.

    Args:
        rng: draws it.
        domain: the page's.
        number: makes its address unique.
    """
    language, label = rng.choice(LANGUAGES), rng.choice(("shop", "general"))
    sentences = words(" ".join(_SENTENCES[language][label].split()))
    chosen = rng.sample(sentences, rng.randint(4, len(sentences)))
    filled = [f"{sentence}." for sentence in chosen]
    filled = [text.format(price=f"{rng.randint(5, 400)},{rng.randint(0, 99):02}", number=rng.randint(2, 60))
              for text in filled]  # fmt: skip
    url = f"https://www.{domain}{language}.example/{label}/{number}"
    return {"text": "\n".join(filled), "url": url, "domain": domain, "label": label}
