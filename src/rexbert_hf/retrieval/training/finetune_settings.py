"""What a search recipe may say: data, bi-encoder, loss, rows, mining, validation, time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub.utils import validate_repo_id

from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings
from rexbert_hf.retrieval.training.grid_settings import GridSettings
from rexbert_hf.retrieval.training.mining import MiningSettings
from rexbert_hf.retrieval.training.search_batches import RowKind, RowSettings
from rexbert_hf.retrieval.training.search_data import SearchDataSettings
from rexbert_hf.settings.ranges import check_above_zero, check_least

ROW_KINDS: dict[str, RowKind] = {"hinge": "hinge", "ranking": "ranking", "cosent": "graded"}


@dataclass
class LossSettings:
    """Which loss is trained, with its own parameters.

    Attributes:
        name: ranking (in-batch softmax without false negatives), hinge (the paper's), or cosent (graded pairs).
        scale: of the cosines, for ranking and cosent.
        symmetric: ranking: weight of the direction product to query.
        margin: ranking: candidates that score more than this above the positive are no negatives; None keeps all.
        positive: hinge: delta_pos.
        hard_upper: hinge: delta_hn+.
        hard_lower: hinge: delta_hn-.
        random_upper: hinge: delta_rn.
        cached: gradient cache: batches beyond memory for a third more time.
        block_size: texts of one forward pass (cosent: in evaluation only).
    """

    name: Literal["ranking", "hinge", "cosent"] = "ranking"
    scale: float = 20.0
    symmetric: float = 0.0
    margin: float | None = None
    positive: float = 0.9
    hard_upper: float = 0.55
    hard_lower: float = 0.2
    random_upper: float = 0.2
    cached: bool = False
    block_size: int = 64

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise ValueError(f"block_size must be at least 1; got {self.block_size}")
        if self.name == "cosent" and self.cached:
            raise ValueError(
                "loss.cached does not go with loss.name cosent: use ranking or hinge, or a smaller batch_size"
            )
        check_above_zero(self, "scale")
        check_least(self, symmetric=0)


@dataclass
class ValidationSettings:
    """When and on what the model is chosen.

    Attributes:
        every_epochs: epochs between validations.
        max_products: size of the catalogue's part that is searched; None for all of it.
        max_queries: validation queries to use.
        patience: stop after so many validations without a better R@100; None never stops.
        test: measure the test queries over the whole catalogue at the end.
    """

    every_epochs: float = 1.0
    max_products: int | None = 16_000
    max_queries: int | None = None
    patience: int | None = 3
    test: bool = True

    def __post_init__(self) -> None:
        if self.every_epochs <= 0:
            raise ValueError(f"every_epochs must be above 0; got {self.every_epochs}")
        check_above_zero(self, "every_epochs")
        check_least(self, max_products=1, max_queries=1, patience=1)


@dataclass
class SearchTrainerSettings:
    """How training runs.

    Attributes:
        epochs: passes over the positives (cosent: over all pairs).
        max_steps: stop there at the latest.
        max_minutes: the rate falls, and training ends, by this time at the latest, validation and mining included; None
            for no limit. With it a run depends on the machine's speed.
        learning_rate: peak.
        warmup: share of training.
        final: learning rate at the end, as a share of the peak; it falls linearly.
        weight_decay: relative to the peak rate; not on norms and biases.
        max_grad_norm: clip the gradient; StableAdamW clips updates by itself, so 0 (off) is usual.
        bf16: bfloat16 autocast; "auto" where GPU or CPU multiply it faster.
        logging_steps: steps between log records.
        save_epochs: epochs between checkpoints.
        save_total_limit: checkpoints to keep; 0: all.
        report_to: trackers, or none.
        use_cpu: stay off the GPU.
        cpu_threads: torch threads.
    """

    epochs: float = 1.0
    max_steps: int | None = None
    max_minutes: float | None = None
    learning_rate: float = 5e-5
    warmup: float = 0.05
    final: float = 0.0
    weight_decay: float = 1e-5
    max_grad_norm: float = 0.0
    bf16: bool | Literal["auto"] = "auto"
    logging_steps: int = 10
    save_epochs: float = 1.0
    save_total_limit: int = 2
    report_to: str = "none"
    use_cpu: bool = False
    cpu_threads: int | None = None

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.save_epochs <= 0 or self.learning_rate <= 0:
            raise ValueError("epochs, save_epochs and learning_rate must be above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of training, at least 0 and below 1; got {self.warmup}")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ValueError(f"max_minutes must be above 0; got {self.max_minutes}")
        check_above_zero(self, "epochs", "save_epochs", "learning_rate", "max_minutes")
        check_least(self, max_steps=1, cpu_threads=1, logging_steps=1, save_total_limit=0, weight_decay=0, final=0)


@dataclass
class FinetuneSettings:
    """A whole fine-tuning run for search.

    Attributes:
        output_dir: the run's folder; starting again on it resumes the run.
        data: queries, products, judgements.
        model: the bi-encoder.
        loss: what is trained.
        matryoshka: train a grid of sub-models in one; None trains the whole model only.
        rows: what a step holds.
        mining: hard negatives; used where `rows.mined` is above 0, or for hinge rows that lack hard negatives when set.
        validation: choice of the model.
        trainer: how training runs.
        seed: of everything.
        push_to_hub: "user/name" to push the finished run to.
        private: whether a new repository is private.
    """

    output_dir: str = "output/search"
    data: SearchDataSettings = field(default_factory=SearchDataSettings)
    model: BiEncoderSettings = field(default_factory=BiEncoderSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    matryoshka: GridSettings | None = None
    rows: RowSettings = field(default_factory=RowSettings)
    mining: MiningSettings | None = None
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    trainer: SearchTrainerSettings = field(default_factory=SearchTrainerSettings)
    seed: int = 0
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        if self.push_to_hub is not None:
            validate_repo_id(self.push_to_hub)
        if self.rows.mined and self.loss.name != "ranking":
            raise ValueError("rows.mined is for the ranking loss; the hinge loss takes mined negatives by itself")
        if self.rows.made_up and self.loss.name != "ranking":
            raise ValueError(f"rows.made_up is for the ranking loss; with loss.name {self.loss.name} set it to 0")
        if self.rows.mined and self.mining is None:
            self.mining = MiningSettings()
        if self.mining is not None:
            self._check_mining()
        if self.matryoshka is not None:
            self._check_matryoshka(self.matryoshka)

    def _check_mining(self) -> None:
        way_out = {
            "ranking": None if self.rows.mined else "set rows.mined to 1 or more",
            "hinge": None if self.rows.hard else "set rows.hard above 0",
            "cosent": "use loss.name ranking or hinge",
        }[self.loss.name]
        if way_out is not None:
            raise ValueError(f"mining is set, but no row would take what it finds: {way_out}, or leave mining out")

    def _check_matryoshka(self, chosen: GridSettings) -> None:
        stock = chosen.way == "matryoshka2d"
        if self.loss.name == "cosent" or (stock and self.loss.name != "ranking"):
            raise ValueError(f"matryoshka ({chosen.way}) does not go with loss.name {self.loss.name}: use ranking")
        if not stock:
            return
        if self.loss.cached or self.loss.symmetric or self.loss.margin is not None:
            raise ValueError("matryoshka.way matryoshka2d knows no loss.cached, loss.symmetric and loss.margin")
        if chosen.weights is not None or chosen.sample:
            raise ValueError(
                "matryoshka.way matryoshka2d knows no matryoshka.weights and matryoshka.sample (it draws one layer and"
                " one dimension a step, all alike): drop them, or use way grid"
            )
        if not self.model.shared:
            raise ValueError("matryoshka.way matryoshka2d needs one encoder for both sides: set model.shared to true")

    def card_fields(self) -> dict[str, Any]:
        """Fields of the card, kept in `run.json`, so that a push renders the same."""
        return card_fields(self.model.base)


def card_fields(base: str | None) -> dict[str, Any]:
    """What the cards of bi-encoders say alike.

    Args:
        base: the model that was fine-tuned.

    Example:
        >>> card_fields(None)["library_name"]
        'sentence-transformers'
    """
    return {
        "template": "search_card.md",
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "product-search", "e-commerce", "rexbert"],
        "base_model": base,
    }
