"""Neighbour product reconstruction on real associations: is a neighbour nearer than a random product, before and after?

Products are split, so no product of the evaluation was trained on, nor its colours. A random product is an unrelated
one of the neighbour's length, for distances grow with length. The encoder is a general-text micro, before and after
training masked LM and reconstruction together through the pre-training package. Goal: half of the error is gone.

    python benchmarks/neighbors.py [--quick] [--model CHECKPOINT] [--shops gift_cards,online_retail,hm_baskets]

Beside it: random embeddings of tokens under the same distances, overlap of words, with `--sentence_model` the cosine
of any sentence-transformers model. Without `--model` a micro is trained on general text first (about 10 minutes).
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import report
from neighbor_data import READERS, Shop, shops
from product_text import DATA_DIR
from rexbert_hf.models import RexBertForMaskedLM
from rexbert_hf.objectives import AssociationGraph, reconstruction_distance
from rexbert_hf.pretraining import PretrainSettings, pretrain
from rexbert_hf.settings import from_dict

HELD_OUT = 0.25
MOST_TRIPLETS = 2000
SEQ_LENGTH = 64
FORMS = {"eq11": False, "normalised": True}
GOAL = 0.5
"""Of the error before training that may remain."""

Distances = Callable[[np.ndarray], np.ndarray]


def phase(**changes: Any) -> dict[str, Any]:
    """A training phase as a recipe's YAML would have it."""
    fields: dict[str, Any] = {"seq_length": SEQ_LENGTH, "batch_tokens": 4096, "learning_rate": 1e-3}
    fields["masking"] = {"kind": "mlm", "mlm_probability": 0.15}
    return fields | changes


def settings(folder: Path, **fields: Any) -> PretrainSettings:
    """A run without evaluation, on one core."""
    common = {
        "output_dir": str(folder),
        "micro_batch_tokens": 4096,
        "evaluation": {"held_out": 0, "baselines": False},
        "trainer": {"logging_steps": 25, "save_steps": 100_000, "cpu_threads": 1, "extra": {"measure_mfu": False}},
    }
    return from_dict(PretrainSettings, common | fields)


def general_micro(folder: Path, tokens: int) -> Path:
    """Train a micro on general text; the sample shop's where the real one is not there."""
    files = sorted((DATA_DIR / "text" / "general").glob("*.txt.gz"))
    source = {"path": [str(file) for file in files]} if files else {"sample": "general_text"}
    schedule = {"name": "warmup_stable_decay", "warmup_tokens": tokens // 10, "decay_tokens": tokens // 5}
    general = phase(name="general", mixture={"general": 1}, max_tokens=tokens, seq_length=512, learning_rate=3e-3)
    general |= {"schedule": schedule, "masking": {"kind": "mlm", "mlm_probability": 0.3}}
    vocabulary = {"vocab_size": 16_384, "max_documents": 40_000} if files else {"vocab_size": 4096}
    pretrain(settings(folder, sources={"general": source}, phases=[general], tokenizer=vocabulary))
    return folder


def train(shop: Shop, train_graph: AssociationGraph, model: Path, folder: Path, tokens: int, **neighbors: Any) -> Path:
    """Train masked LM and reconstruction together on one side of the split."""
    folder.mkdir(parents=True)
    near = set(np.array(train_graph.product_ids, dtype=object)[train_graph.degrees > 0])
    for name, products in (("linked", near), ("others", set(train_graph.product_ids) - near)):
        rows = ({"product_id": product, "text": shop.texts[product]} for product in sorted(products))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ends = ([train_graph.product_ids[i] for i in pair] for pair in train_graph.pairs())
    rows = (json.dumps({"product_a": a, "product_b": b}) + "\n" for a, b in ends)
    (folder / "pairs.jsonl").write_text("".join(rows), encoding="utf-8")
    columns = {"text": "text", "product_id": "product_id"}
    sources = {
        name: {"path": str(folder / f"{name}.jsonl"), "columns": columns}
        for name in ("linked", "others")
        if (folder / f"{name}.jsonl").stat().st_size
    }
    joint = phase(name="joint", mixture={"linked": 1}, max_tokens=tokens, objectives=["mlm", "npr"])
    joint |= {"schedule": {"name": "linear"}, "learning_rate": 3e-3}
    joint |= {"neighbors": {"normalize": True, "weight": 5.0, **neighbors}}
    recipe = settings(
        folder / "model",
        sources=sources,
        phases=[joint],
        model={"size": None, "init_from": str(model)},
        associations={"path": str(folder / "pairs.jsonl")},
    )
    pretrain(recipe)
    return folder / "model"


# Evaluation


def triplets(graph: AssociationGraph, lengths: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Products, neighbours and unrelated products of (nearly) the neighbour's length, int `[P, 3]`."""
    rng = np.random.default_rng(seed)
    pairs = graph.pairs()
    pairs = rng.permutation(np.concatenate([pairs, pairs[:, ::-1]]))[:most]
    by_length = np.argsort(lengths + rng.random(len(lengths)) / 2)
    found = []
    for a, b in pairs:
        related = np.append(graph.neighbors_at(int(a)), a)
        at = int(np.searchsorted(lengths[by_length], lengths[b]))
        reach = 40
        while reach < 2 * len(lengths):
            pool = np.setdiff1d(by_length[max(0, at - reach) : at + reach], related)
            if len(pool):
                gaps = np.abs(lengths[pool] - lengths[b])
                found.append((a, b, rng.choice(pool[gaps == gaps.min()])))
                break
            reach *= 2
    return np.array(found)


def accuracy(distances: Distances, rows: np.ndarray) -> float:
    """How often the neighbour is nearer; ties count half."""
    near, far = distances(rows[:, :2]), distances(rows[:, [0, 2]])
    return float(np.mean(near < far) + 0.5 * np.mean(near == far))


@dataclass
class Contents:
    """Tokens of the products of a graph."""

    rows: list[np.ndarray]
    content: list[np.ndarray]

    @classmethod
    def of(cls, shop: Shop, graph: AssociationGraph, tokenizer: PreTrainedTokenizerBase) -> Contents:
        """Tokenise and cut as training does."""
        texts = [shop.texts[product] for product in graph.product_ids]
        rows = tokenizer(texts, truncation=True, max_length=SEQ_LENGTH)["input_ids"]
        ids = [np.array(row, dtype=np.int64) for row in rows]
        return cls(ids, [~np.isin(row, tokenizer.all_special_ids) for row in ids])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each."""
        return np.array([len(row) for row in self.rows])

    def encode(self, used: np.ndarray, encode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Distances:
        """Distances from the states that `encode(ids [1, T], borders)` gives, by form."""
        states: dict[int, torch.Tensor] = {}
        for start in range(0, len(used), 64):
            part = used[start : start + 64]
            borders = np.cumsum([0, *(len(self.rows[i]) for i in part)])
            flat = encode(
                torch.from_numpy(np.concatenate([self.rows[i] for i in part]))[None], torch.from_numpy(borders)
            )
            for i, low, high in zip(part.tolist(), borders[:-1], borders[1:], strict=True):
                states[i] = flat[low:high][torch.from_numpy(self.content[i])]
        self.states = states
        return self.distances("normalised")

    def distances(self, form: str) -> Distances:
        """Distance of pairs under equation 11 or its normalised form."""

        def compute(pairs: np.ndarray) -> np.ndarray:
            found = []
            for start in range(0, len(pairs), 64):
                sides = [[self.states[int(i)] for i in column] for column in pairs[start : start + 64].T]
                padded = [torch.nn.utils.rnn.pad_sequence(side, batch_first=True) for side in sides]
                masks = [
                    torch.arange(p.shape[1]) < torch.tensor([[len(s)] for s in side])
                    for p, side in zip(padded, sides, strict=True)
                ]
                found.append(reconstruction_distance(*padded, *masks, normalize=FORMS[form]))
            return torch.cat(found).numpy()

        return compute


@torch.no_grad()
def by_model(contents: Contents, rows: np.ndarray, folder: Path) -> dict[str, float]:
    """Accuracy of an encoder by each form of the distance."""
    model = RexBertForMaskedLM.from_pretrained(folder).model.eval()

    def encode(ids: torch.Tensor, borders: torch.Tensor) -> torch.Tensor:
        longest = int(borders.diff().max())
        states: torch.Tensor = model(ids, cu_seq_lens_q=borders.int(), max_length_q=longest).last_hidden_state[0]
        return states

    contents.encode(np.unique(rows), encode)
    return {form: accuracy(contents.distances(form), rows) for form in FORMS}


def by_random_embeddings(contents: Contents, rows: np.ndarray, vocabulary: int, width: int = 256) -> dict[str, float]:
    """Accuracy with a random vector for each token: what equal tokens alone tell."""
    table = torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(0))
    contents.encode(np.unique(rows), lambda ids, borders: table[ids[0]])
    return {form: accuracy(contents.distances(form), rows) for form in FORMS}


def by_overlap(texts: Sequence[str], rows: np.ndarray) -> float:
    """Accuracy of the shared words (Jaccard)."""
    words = [set(re.findall(r"\w+", text.lower())) for text in texts]

    def distances(pairs: np.ndarray) -> np.ndarray:
        return np.array([1 - len(words[i] & words[j]) / max(1, len(words[i] | words[j])) for i, j in pairs])

    return accuracy(distances, rows)


def by_sentence_model(texts: Sequence[str], rows: np.ndarray, folder: str) -> float:
    """Accuracy of the cosine of a sentence-transformers model."""
    from sentence_transformers import SentenceTransformer

    used = np.unique(rows)
    vectors = SentenceTransformer(folder).encode([texts[i] for i in used], normalize_embeddings=True)
    place = np.zeros(int(used.max()) + 1, dtype=np.int64)
    place[used] = np.arange(len(used))
    return accuracy(lambda pairs: -(vectors[place[pairs[:, 0]]] * vectors[place[pairs[:, 1]]]).sum(axis=1), rows)


def measure(shop: Shop, model: Path, work: Path, args: argparse.Namespace) -> list[report.Reading]:
    """Readings of one data set; prints its part of the table. A quick run is not judged: the goal is for all of it."""
    trained, held_out = shop.graph.split(HELD_OUT, group=shop.groups)
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    contents = Contents.of(shop, held_out, tokenizer)
    rows = triplets(held_out, contents.lengths, MOST_TRIPLETS)
    texts = [shop.texts[product] for product in held_out.product_ids]
    print(f"\n{shop.name}: trained on {trained}, held out {held_out}, {len(rows)} triplets", flush=True)
    found: dict[str, Any] = {"random embeddings": by_random_embeddings(contents, rows, len(tokenizer))}
    found["shared words"] = by_overlap(texts, rows)
    if args.sentence_model:
        found["sentence model"] = by_sentence_model(texts, rows, args.sentence_model)
    found["before"] = by_model(contents, rows, model)
    found["after"] = by_model(contents, rows, train(shop, trained, model, work / shop.name, args.tokens))
    for name, values in found.items():
        shown = values if isinstance(values, dict) else {"": values}
        print(f"  {name:18}" + "  ".join(f"{form} {value:.3f}" for form, value in shown.items()))
    error = (rows.shape[0] * 0.25) ** -0.5 / 2
    print(f"  (standard error of a reading at most {error:.3f}, products of a pair counted as independent)")
    return [
        report.Reading(
            f"neighbors/{shop.name}/{form}/error",
            1 - found["after"][form],
            1 - found["before"][form],
            goal=None if args.quick else GOAL,
            unit="share of triplets, peer: before",
            lower=True,
        )
        for form in FORMS
    ]


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    parser: argparse.ArgumentParser = report.parser(__doc__, "a tenth of the training tokens")
    parser.add_argument("--model", type=Path, help="a general-text checkpoint to start from")
    parser.add_argument("--shops", default=",".join(READERS), help="data sets, with commas")
    parser.add_argument("--tokens", type=int, default=2_400_000, help="training tokens of each data set")
    parser.add_argument("--sentence_model", help="folder of a sentence-transformers model to compare with")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    args.tokens //= 10 if args.quick else 1
    report.header("neighbors")
    with tempfile.TemporaryDirectory() as work:
        model = args.model or general_micro(Path(work) / "general", 200_000 if args.quick else 3_000_000)
        readings = [
            reading for shop in shops(args.shops.split(",")) for reading in measure(shop, model, Path(work), args)
        ]
    report.finish(readings)


if __name__ == "__main__":
    main()
