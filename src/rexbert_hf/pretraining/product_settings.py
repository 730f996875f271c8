"""Sources that are made of product records: whole products as texts (stage 1), query-product pairs (stage 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rexbert_hf.catalog import PRODUCT_FIELDS
from rexbert_hf.settings.ranges import check_least


def _all_fields() -> list[str]:
    return list(PRODUCT_FIELDS)


@dataclass
class ProductTextSettings:
    """How a product becomes one text: its fields with their names, as "title: ... . brand: ...".

    Attributes:
        fields: which fields; names of attributes are fields too.
        field_names: put the field's name before it.
        permute: put the fields of each product in random order, the same one in every run with this seed.
        seed: of the orders.
    """

    fields: list[str] = field(default_factory=_all_fields)
    field_names: bool = True
    permute: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.fields:
            raise ValueError("fields is empty: name at least one, such as title")


@dataclass
class PairSettings:
    """Makes a source one of query-product pairs: rows with a query and the id of a product.

    Attributes:
        products: files or a Hub data set of the products; None where the rows have the product's fields themselves, and
            for the sample shop.
        product_columns: our column names and theirs, for the products.
        query_fields: columns of a pair that make the query; several are named, as fields of the product are.
        product_fields: fields of the product.
        field_names: put each product field's name before it.
        min_relevance: leave out pairs below this relevance (E and S count 1, C and I count 0); None keeps all.
        max_query_tokens: the query is cut there.
        max_tokens: the pair is cut there, special tokens included.
    """

    products: str | list[str] | None = None
    product_columns: dict[str, str | list[str]] | None = None
    query_fields: list[str] = field(default_factory=lambda: ["query"])
    product_fields: list[str] = field(default_factory=_all_fields)
    field_names: bool = True
    min_relevance: float | None = None
    max_query_tokens: int = 64
    max_tokens: int = 256

    def __post_init__(self) -> None:
        if not self.query_fields or not self.product_fields:
            raise ValueError("query_fields and product_fields name at least one field each")
        if self.query_fields[0] != "query":
            raise ValueError("the first of query_fields is 'query': map its column with the source's columns")
        check_least(self, max_query_tokens=1, max_tokens=8)
