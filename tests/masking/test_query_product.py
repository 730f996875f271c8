from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from masking_cases import CLS, MASK, SEP, TEXTS, assert_same, masked_of, originals_of, trained_tokenizer, word_tokenizer
from torch.utils.data import DataLoader

from rexbert_hf import MLMCollator, QueryProductCollator
from rexbert_hf.data.encode_pairs import PairEncoder
from rexbert_hf.data.rows import FIELD, RowBatch
from rexbert_hf.data.tokenise import tokenise
from rexbert_hf.masking import GuidedMLMCollator, QueryProductRelevanceCollator
from rexbert_hf.masking.pair_rows import first_separators, permute_fields, sides


def pair_row(query, product, first=10, fields=None, relevance=1.0):
    """Ids count up from `first`; sizes are tokens of each word. `fields` are token ranges within the row."""
    ids, words, number, word = [CLS], [-1], first, 0
    for side in (query, product):
        for size in side:
            ids += range(number, number + size)
            words += [word] * size
            number, word = number + size, word + 1
        ids.append(SEP)
        words.append(-1)
    row = {"input_ids": ids, "word_ids": words}
    if fields is not None:
        row |= {"span_start": [start for start, _ in fields], "span_end": [end for _, end in fields]}
        row |= {"span_score": [relevance] * len(fields), "span_kind": [FIELD] * len(fields)}
    return row


def random_pairs(count=200, seed=0, step=None):
    rng = np.random.default_rng(seed)
    rows = [
        pair_row(rng.integers(1, 3, size=rng.integers(1, 7)), rng.integers(1, 3, size=rng.integers(3, 13)))
        for _ in range(count)
    ]
    return rows if step is None else [{**row, "step": step} for row in rows]


def by_row(values, rows):
    return np.split(np.asarray(values), np.cumsum([len(row["input_ids"]) for row in rows])[:-1])


def border(row):
    return row["input_ids"].index(SEP)


@pytest.mark.parametrize("options", [{}, {"query_share": "length"}, {"query_probability": 0.5}, {"per_span": True}])
def test_one_side_whole_words_and_no_special_token(tokenizer, options):
    rows = random_pairs()
    collator = QueryProductCollator(tokenizer, 0.3, flat=True, **options)
    for step in range(40):
        masked = masked_of(collator([{**row, "step": step} for row in rows]))
        for row, mine in zip(rows, by_row(masked, rows), strict=True):
            words, at = np.array(row["word_ids"]), border(row)
            assert not mine[words < 0].any(), "special tokens"
            assert not (mine[:at].any() and mine[at:].any()), "one side only"
            for word in range(words.max() + 1):
                assert len(set(mine[words == word].tolist())) == 1, "whole words"


def test_the_share_of_each_side_is_met_in_expectation(tokenizer):
    rows = random_pairs(400)
    collator = QueryProductCollator(tokenizer, 0.2, query_probability=0.35, flat=True)
    eligible = np.concatenate([np.array(row["word_ids"]) >= 0 for row in rows])
    product = np.concatenate([np.arange(len(row["input_ids"])) > border(row) for row in rows])
    chosen = {name: [0, 0] for name in ("query", "product")}
    queries = []
    for step in range(150):
        masked = masked_of(collator([{**row, "step": step} for row in rows]))
        for name, side in (("query", ~product), ("product", product)):
            chosen[name][0] += masked[side & eligible].sum()
            chosen[name][1] += (side & eligible).sum()
        queries.append(collator.stats["query_rows"])
    # Each side is chosen half of the time; 60,000 draws of a row, each of a few words.
    for name, share in (("query", 0.35), ("product", 0.2)):
        assert chosen[name][0] / chosen[name][1] == pytest.approx(share / 2, rel=0.02)
    assert abs(np.mean(queries) - 200) < 5 * math.sqrt(100 / 150)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.0, 0.0), ("length", 0.25)])
def test_how_the_side_is_drawn(tokenizer, share, expected):
    rows = [pair_row([1] * 5, [1] * 15)] * 1000
    collator = QueryProductCollator(tokenizer, 0.5, query_share=share)
    collator(rows)
    assert abs(collator.stats["query_rows"] / 1000 - expected) <= 5 * math.sqrt(expected * (1 - expected) / 1000)


def test_short_queries_are_not_starved(tokenizer):
    """.35 of three words is one word and a bit: every query that is chosen has one."""
    rows = [pair_row([1, 1, 1], [1] * 10)] * 500
    collator = QueryProductCollator(tokenizer, 0.2, query_probability=0.35)
    collator(rows)
    assert collator.stats["rows_without_labels"] == 0
    literal = QueryProductCollator(tokenizer, 0.15, query_share=1.0)
    literal(rows)
    assert abs(literal.stats["rows_without_labels"] / 500 - 0.55) < 5 * math.sqrt(0.55 * 0.45 / 500)


def test_replacements_are_80_10_10(tokenizer):
    rows = random_pairs(500, step=1)
    out = QueryProductCollator(tokenizer, 0.5, flat=True)(rows)
    masked, ids, labels = masked_of(out), out["input_ids"][0].numpy(), out["labels"][0].numpy()
    count = masked.sum()
    assert abs((ids[masked] == MASK).mean() - 0.8) < 5 * math.sqrt(0.16 / count)
    kept = (ids[masked] == labels[masked]).mean()
    assert abs(kept - 0.1 - 0.1 / 60) < 5 * math.sqrt(0.09 / count)
    assert (ids[~masked] == np.concatenate([row["input_ids"] for row in rows])[~masked]).all()


def test_padded_is_flat(tokenizer):
    rows = random_pairs(50, step=3)
    flat = QueryProductCollator(tokenizer, flat=True)(rows)
    padded = QueryProductCollator(tokenizer)(rows)
    real = padded["attention_mask"].bool()
    for name in ("input_ids", "labels"):
        assert padded[name][real].tolist() == flat[name][0].tolist()


def test_selections_are_a_function_of_rows_seed_and_step(tokenizer):
    rows = random_pairs(30, step=4)
    assert_same(QueryProductCollator(tokenizer, seed=1)(rows), QueryProductCollator(tokenizer, seed=1)(rows))
    base = masked_of(QueryProductCollator(tokenizer, flat=True)(rows))
    for other in (
        QueryProductCollator(tokenizer, flat=True, seed=2)(rows),
        QueryProductCollator(tokenizer, flat=True)([{**row, "step": 5} for row in rows]),
    ):
        assert (masked_of(other) != base).any()


class Pairs(list):
    def __getitems__(self, keys):
        return [self[key] for key in keys]


def test_workers_change_nothing(tokenizer):
    rows = Pairs({**row, "step": i // 10} for i, row in enumerate(random_pairs(40)))
    batches = []
    for workers in (0, 2):
        loader = DataLoader(rows, batch_size=10, num_workers=workers, collate_fn=QueryProductCollator(tokenizer))
        batches.append(list(loader))
    assert len(batches[0]) == 4
    for alone, shared in zip(*batches, strict=True):
        assert_same(alone, shared)


def fielded(step=0):
    """Query of two fields, product of three; glue of one token between them."""
    row = pair_row([1] * 5, [1] * 11, fields=[(1, 3), (4, 6), (7, 9), (10, 14), (15, 18)])
    return {**row, "step": step}


def test_fields_change_places_within_their_side_and_nothing_is_lost(tokenizer):
    row = fielded()
    orders = Counter()
    collator = QueryProductCollator(tokenizer, flat=True)
    for step in range(600):
        out = collator([{**row, "step": step}, {**row, "step": step}])
        for ids in originals_of(out)[0].reshape(2, -1).numpy():
            assert ids[border(row)] == ids[-1] == SEP
            assert ids[3] == 12, "what stands between fields stays"
            assert sorted(ids[: border(row)].tolist()) == sorted(row["input_ids"][: border(row)])
            text = "".join(chr(i + 87) for i in ids if i > MASK)  # ids 10, 11, ... are a, b, ...
            query, product = text[:5], text[5:]
            # ab c de in the query; fg h ijkl m nop in the product.
            assert query in ("abcde", "decab")
            order = tuple(sorted(("fg", "ijkl", "nop"), key=product.index))
            assert all(field in product for field in order)
            assert product == order[0] + "h" + order[1] + "m" + order[2]
            orders[query, order] += 1
    assert len(orders) == 12
    assert max(abs(n - 100) for n in orders.values()) < 5 * math.sqrt(100)


def test_rows_are_permuted_apart_and_word_ids_travel(tokenizer):
    batch = RowBatch.from_rows([fielded(), pair_row([2, 1], [3], fields=[]), fielded()])
    done = permute_fields(batch, SEP, np.random.Generator(np.random.SFC64(4)))
    assert done.offsets.tolist() == batch.offsets.tolist()
    word_of = dict(zip(batch.input_ids[:19].tolist(), batch.word_ids[:19].tolist(), strict=True))
    for ids, words in zip(by_row(done.input_ids, batch), by_row(done.word_ids, batch), strict=True):
        if len(ids) == 19:
            assert [word_of[i] for i in ids.tolist()] == words.tolist()
    plain = QueryProductCollator(tokenizer, flat=True, permute_fields=False)([fielded()])
    assert originals_of(plain)[0].tolist() == fielded()["input_ids"]


def test_masks_are_whole_words_after_a_permutation(tokenizer):
    row = pair_row([2, 2, 1], [3, 1, 2, 2], fields=[(1, 3), (3, 6), (7, 10), (11, 15)])
    word_of = dict(zip(row["input_ids"], row["word_ids"], strict=True))
    collator = QueryProductCollator(tokenizer, 0.5, flat=True)
    for step in range(200):
        out = collator([{**row, "step": step}])
        words = Counter(word_of[i] for i in originals_of(out)[0].tolist() if i > MASK)
        chosen = Counter(word_of[i] for i in out["labels"][out["labels"] != -100].tolist())
        assert all(words[word] == count for word, count in chosen.items())


def test_rows_of_two_parts(tokenizer):
    parts = {"query_ids": [10, 11, 12], "product_ids": [20, 21], "query_word_ids": [0, 0, 1]}
    collator = QueryProductCollator(tokenizer, 0.5, flat=True)
    out = collator([{**parts, "step": 3}])
    assert originals_of(out)[0].tolist() == [CLS, 10, 11, 12, SEP, 20, 21, SEP]
    for step in range(60):
        masked = masked_of(collator([{**parts, "step": step}]))
        assert masked[1] == masked[2]
        assert not masked[[0, 4, 7]].any()
    with pytest.raises(ValueError, match="row 1 has no 'query_ids', but row 0 has"):
        collator([parts, {"input_ids": [CLS, 10, SEP]}])


@pytest.mark.parametrize(
    "row",
    [
        {"input_ids": [CLS, 10, 11, 12, SEP], "word_ids": [-1, 0, 1, 2, -1]},  # a plain document
        {"input_ids": [CLS, SEP, 10, 11, 12, SEP], "word_ids": [-1, -1, 0, 1, 2, -1]},  # no query
        {"input_ids": [CLS, 10, 11, 12, SEP, SEP], "word_ids": [-1, 0, 1, 2, -1, -1]},  # no product
        {"input_ids": [10, 11, 12]},  # no special token at all
    ],
)
def test_rows_with_one_side(tokenizer, row):
    collator = QueryProductCollator(tokenizer, 0.34, query_probability=0.9, flat=True)
    counts = sum(masked_of(collator([{**row, "step": step}])).astype(int) for step in range(300))
    body = np.array(row["input_ids"]) > MASK
    assert (counts[body] > 0).all()
    assert abs(counts.sum() - 300 * 1.02) < 40, "the product's share"


def test_rows_without_words(tokenizer):
    out = QueryProductCollator(tokenizer)([{"input_ids": [CLS, SEP, SEP], "word_ids": [-1, -1, -1]}])
    assert (out["labels"] == -100).all()


def test_segments(tokenizer):
    rows = [pair_row([1, 1], [1, 1, 1]), pair_row([1], [1])]
    out = QueryProductCollator(tokenizer, token_type_ids=True)(rows)
    assert out["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]]


def test_relevance_of_pairs(tokenizer):
    rows = [pair_row([1], [1, 1], fields=[(1, 2)], relevance=score) | {"step": 0} for score in (1.0, 0.0, 0.5, 0.25)]
    out = QueryProductRelevanceCollator(tokenizer, flat=True)(rows)
    assert out["labels"].tolist() == [1, 0, 1, 0]
    assert out["input_ids"][0].tolist() == [i for row in rows for i in row["input_ids"]]
    assert out["cu_seq_lens_q"].tolist() == [0, 6, 12, 18, 24]
    with pytest.raises(ValueError, match="no relevance"):
        QueryProductRelevanceCollator(tokenizer)([pair_row([1], [1])])
    mixed = [rows[0], pair_row([1], [1], fields=[])]
    with pytest.raises(ValueError, match="row 1 of the batch has no field"):
        QueryProductRelevanceCollator(tokenizer)(mixed)


def test_other_collators_take_no_notice_of_fields(tokenizer):
    row = fielded()
    bare = {name: row[name] for name in ("input_ids", "word_ids", "step")}
    for cls, options in ((GuidedMLMCollator, {}), (MLMCollator, {"whole_word": True})):
        assert_same(cls(tokenizer, flat=True, **options)([row]), cls(tokenizer, flat=True, **options)([bare]))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"query_probability": 0.0}, r"query_probability must lie in \(0, 1\]"),
        ({"query_share": 1.5}, "query_share is a probability"),
        ({"query_share": "half"}, "query_share is a probability"),
        ({"geometric_p": 0.0}, "geometric_p must lie between 0 and 1"),
        ({"flat": True, "token_type_ids": True}, "token_type_ids belong to padded batches"),
    ],
)
def test_options_out_of_range(tokenizer, options, problem):
    with pytest.raises(ValueError, match=problem):
        QueryProductCollator(tokenizer, **options)


def test_a_tokenizer_without_separator():
    with pytest.raises(ValueError, match="no separator token"):
        QueryProductCollator(word_tokenizer(sep_token=None))


def test_overlapping_fields_are_refused(tokenizer):
    row = pair_row([1] * 4, [1], fields=[(1, 3), (2, 4)])
    with pytest.raises(ValueError, match="row 0 of the batch: its fields overlap"):
        QueryProductCollator(tokenizer)([row])


def test_borders_of_sides():
    rows = [pair_row([1, 1], [1]), {"input_ids": [CLS, 9]}, pair_row([], [1])]
    batch = RowBatch.from_rows([{"input_ids": row["input_ids"]} for row in rows])
    assert first_separators(batch, SEP).tolist() == [3, 8, 9]
    assert sides(batch, SEP).tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_real_tokenizers_from_text_to_batch(kind):
    tokenizer = trained_tokenizer(kind)
    pairs = [
        {"query": [text.split(",")[0][:20]], "product": [f"title: {text}", "brand: tea"], "relevance": 1.0}
        for text in TEXTS
    ]
    store = tokenise(pairs, tokenizer, encoder=PairEncoder.of_pairs(tokenizer, 16, 64))
    rows = store.take(range(len(pairs)), step=2)
    collator = QueryProductCollator(tokenizer, 0.4, flat=True)
    before = Counter(rows.input_ids.tolist())
    out = collator(rows)
    assert Counter(originals_of(out)[0].tolist()) == before
    masked, border_of = masked_of(out), first_separators(rows, tokenizer.sep_token_id)
    for d in range(len(rows)):
        mine = masked[rows.offsets[d] : rows.offsets[d + 1]]
        at = border_of[d] - rows.offsets[d]
        assert not (mine[:at].any() and mine[at:].any())
    assert not np.isin(originals_of(out)[0].numpy()[masked], tokenizer.all_special_ids).any()
