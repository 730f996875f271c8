"""The e-commerce vertical, the default. Labels, keywords and examples are ours: the paper's are not public.

Weights of keywords were set by hand with an eye on real shop and general text, and lean to the safe side: what they
find is rarely general, but they miss bare product names, search queries and many reviews.

It is code and not YAML so that the package needs no data file; a YAML of one's own has the same fields (`Vertical`).
"""

from __future__ import annotations

from .vertical import Example, Vertical

_SHOP = {
    "add to basket": 2, "add to cart": 2, "add to bag": 2, "buy now": 1.5, "shop now": 1.5, "buy online": 1.5,
    "order online": 1, "checkout": 0.7, "in stock": 1, "out of stock": 1, "ready for dispatch": 1,
    "while stocks last": 1.5, "free shipping": 1.5, "free delivery": 1.5, "free returns": 1.5, "shipping": 0.5,
    "money back": 0.7, "warranty": 0.6, "sku": 1, "item number": 1, "model number": 1, "specification": 0.8,
    "specifications": 0.8, "size chart": 1.5, "machine washable": 1, "made of": 0.3, "product details": 1.5,
    "product description": 1.5, "customer reviews": 1, "sale": 0.4, "discount": 0.8, "coupon": 1, "promo code": 1.5,
    "with code": 1, "deal of the day": 2, "offer ends": 1.5, "best price": 1, "retail price": 1, "wholesale": 0.6,
    "sorted by": 0.6, "results": 0.2, "accessories": 0.5, "pack of": 0.8, "features": 0.4, "compatible with": 0.8,
    "product": 0.4, "products": 0.4, "brand": 0.3, "apparel": 0.7, "fabric": 0.6, "cotton": 0.4, "polyester": 0.7,
    "leather": 0.3, "machine wash": 1, "tumble dry": 1, "true to size": 1, "sizing": 0.5, "ideal for": 0.6,
    "perfect for": 0.5, "durable": 0.5, "lightweight": 0.5, "waterproof": 0.6, "high quality": 0.6, "stylish": 0.6,
    "versatile": 0.4, "sleek": 0.5, "elevate your": 0.8, "easy to clean": 0.7, "cash on delivery": 1.5,
    "replacement": 0.4, "delivery": 0.3, "genuine": 0.3, "includes": 0.2, "battery": 0.3, "your home": 0.3,
    r"re:\d+ ?% off": 1.5, "re:[$\u00a3\u20ac] ?\\d[\\d,]*(\\.\\d\\d)?": 0.5,
    r"re:\d+(\.\d+)? ?(mm|cm|inch|inches|oz|ml|kg|watts?|mah|gb|mp)": 0.4,
}  # fmt: skip

_ADVICE = {
    "buying guide": 2, "how to choose": 1, "our pick": 1.5, "look for": 0.3, "best budget": 1.5, "pros and cons": 1.2,
    "i bought": 1, "bought this": 1.2, "bought it": 0.8, "purchased": 0.8, "ordered": 0.4, "this product": 1.2,
    "this item": 0.8, "value for money": 1.2, "worth the money": 1.2, "for the price": 1, "waste of money": 1.2,
    "highly recommend": 1, "would recommend": 0.8, "works great": 1, "works well": 0.6, "easy to use": 0.8,
    "battery life": 0.8, "sound quality": 0.7, "returned it": 0.8, "send it back": 0.8, "arrived": 0.3, "stars": 0.5,
    "customer service": 0.6, "good quality": 0.7, "poor quality": 0.8, "buyers": 0.6, "shoppers": 0.6, "unboxing": 1,
    "great product": 1.5, "good product": 1.5, "nice product": 1.5, "the product": 0.6, "i love this": 0.7,
    "love it": 0.4, "love this": 0.6, "very happy with": 0.7, "disappointed": 0.5, "recommend": 0.5, "quality": 0.5,
    "price": 0.4, "buy": 0.4, "purchase": 0.4, "comfortable": 0.4, "fits": 0.4, "excellent": 0.3, "nice": 0.2,
    "awesome": 0.3, "works fine": 0.7, "not worth": 0.6, "worth it": 0.5, "broke": 0.3, "cheap": 0.3, "amazon": 0.4,
}  # fmt: skip

ECOMMERCE = Vertical(
    name="e-commerce",
    description=(
        "Text that helps to sell, find, compare, buy or use a product: product pages and listings, offers, "
        "specifications, buying guides, product reviews, and questions and answers about products. A page belongs to "
        "the domain for what it is about, not for where it stands: a news site's review of a phone belongs, a shop's "
        "privacy policy does not."
    ),
    labels={
        "shop": "offers or describes products for sale: product page, listing, catalogue, deal, specification",
        "advice": "helps to choose or use products: review, comparison, buying guide, product question and answer",
        "mention": "names products, brands or prices in passing, but is about something else",
        "general": "is about something else and has nothing to do with buying",
    },
    in_domain=["shop", "advice"],
    fallback="general",
    keywords={"shop": _SHOP, "advice": _ADVICE},
    threshold=1.0,
    examples=[
        Example(
            "Trail 40 backpack, grey. 40 l, 1.2 kg, rain cover included. $89.00. In stock, free returns. Add to cart.",
            "shop",
            "A product page with price, stock and specification.",
        ),
        Example(
            "After three weeks the kettle still boils a litre in four minutes, but the lid has begun to stick. For the "
            "price I would buy it again.",
            "advice",
            "A review of a product by its owner.",
        ),
        Example(
            "The minister arrived in a rented car, bought a coffee for two euros and went straight to the meeting "
            "about the new railway.",
            "mention",
            "It names a purchase in passing, the subject is politics.",
        ),
        Example(
            "The river rises in the northern hills and reaches the sea after three hundred kilometres, crossing two "
            "nature reserves.",
            "general",
            "Geography.",
        ),
    ],
)
"""What Ecom-niverse is made of."""
