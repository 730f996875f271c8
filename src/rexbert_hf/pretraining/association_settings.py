"""Where a recipe's product associations come from."""

from __future__ import annotations

from dataclasses import dataclass, field

from rexbert_hf.settings.ranges import check_least

FORMS = (("product_a", "product_b"), ("basket", "product_id"), ("basket",))
"""Columns that make associations, the first set that is there: pairs or lists, lines of baskets, whole baskets."""


@dataclass
class AssociationSettings:
    """Which products belong together; products are named as in the `columns.product_id` of the sources.

    Attributes:
        sample: the associations of the sample shop.
        sample_size: products of the sample shop, as in the sources.
        path: file, folder, glob, a list of them, or a data set on the Hub (one that `AssociationGraph` pushed: name it
            as "user/name:associations").
        columns: their columns. {"product_a": ..., "product_b": ...} for pairs, where product_b may hold a list
            (also_buy, also_view); {"basket": ...} for a list of products a row; {"basket": ..., "product_id": ...} for
            a row a product, rows with equal basket making one. Add "kind" to use `kinds`. None: their names are ours.
        format: of the files, where the name does not say it.
        encoding: of text files.
        separator: between the products of one field of text; None: blanks in a basket, and in product_b one product
            stands alone (JSON lists are lists anyway).
        kinds: use associations of these kinds only, such as also_buy.
        min_count: baskets that two products must share.
        max_basket: larger baskets are left out; null for none.
    """

    sample: bool = False
    sample_size: int | None = None
    path: str | list[str] | None = None
    columns: dict[str, str] | None = None
    format: str | None = None
    encoding: str = "utf-8"
    separator: str | None = None
    kinds: list[str] = field(default_factory=list)
    min_count: int = 1
    max_basket: int | None = 100

    def __post_init__(self) -> None:
        if self.sample == (self.path is not None):
            raise ValueError("set exactly one of 'path' (file, folder, glob or Hub data set) and 'sample: true'")
        if self.columns is not None and not any(set(form) <= set(self.columns) for form in FORMS):
            raise ValueError(
                f"columns names {', '.join(self.columns) or 'nothing'}: give product_a and product_b, or basket (with "
                "product_id where each row is one product)"
            )
        if self.min_count < 1 or (self.max_basket is not None and self.max_basket < 2):
            raise ValueError(f"min_count starts at 1 and max_basket at 2; got {self.min_count} and {self.max_basket}")
        check_least(self, sample_size=2)
