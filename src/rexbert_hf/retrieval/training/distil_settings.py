"""What a distillation recipe may say: teacher, student, pairs, validation, time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.utils import validate_repo_id

from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings
from rexbert_hf.retrieval.training.finetune_settings import SearchTrainerSettings, ValidationSettings, card_fields
from rexbert_hf.retrieval.training.search_data import SearchDataSettings
from rexbert_hf.settings.ranges import check_least


@dataclass
class DistilPairsSettings:
    """Which pairs the student learns the scores of.

    Attributes:
        batch_size: pairs of a step.
        retrieved: products that the teacher finds for a training query, beside the judged ones.
        made_up: made-up queries, as a multiple of the products.
        in_batch: weight of all other pairs of a batch.
    """

    batch_size: int = 256
    retrieved: int = 20
    made_up: float = 1.0
    in_batch: float = 1.0

    def __post_init__(self) -> None:
        if self.batch_size < 2 or min(self.retrieved, self.made_up, self.in_batch) < 0:
            raise ValueError("rows need a batch_size of at least 2, and no negative number")
        check_least(self, retrieved=0, made_up=0, in_batch=0)


@dataclass
class DistilSettings:
    """A whole distillation.

    Attributes:
        teacher: folder or Hub id of a bi-encoder (recipes/finetune_search.py makes one).
        output_dir: the run's folder; starting again on it resumes the run.
        data: queries, products, judgements.
        student: the student; `base` is its own pre-trained and pre-finetuned checkpoint, None starts from scratch.
        teacher_layers: build the student from these layers of the teacher instead, with the student's `pooling`,
            `max_tokens`, dropout and `shared` (of two encoders it takes that of the queries).
        rows: which pairs.
        validation: choice of the model.
        trainer: how training runs.
        cache_dir: teacher vectors; None for `output_dir`/cache.
        block_size: texts of one forward pass.
        cached: gradient cache.
        seed: of everything.
        push_to_hub: "user/name" to push the finished run to.
        private: whether a new repository is private.
    """

    teacher: str
    output_dir: str = "output/student"
    data: SearchDataSettings = field(default_factory=SearchDataSettings)
    student: BiEncoderSettings = field(default_factory=lambda: BiEncoderSettings(preset="student", pooling="mean"))
    teacher_layers: list[int] | None = None
    rows: DistilPairsSettings = field(default_factory=DistilPairsSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    trainer: SearchTrainerSettings = field(default_factory=SearchTrainerSettings)
    cache_dir: str | None = None
    block_size: int = 64
    cached: bool = False
    seed: int = 0
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        if self.teacher_layers is not None and self.student.base is not None:
            raise ValueError(
                "teacher_layers takes the student from the teacher, student.base from a checkpoint: set one"
            )
        if self.teacher_layers is not None and (self.student.overrides or self.student.tokenizer):
            raise ValueError(
                "student.overrides and student.tokenizer are for a new student: drop them or teacher_layers"
            )
        if self.push_to_hub is not None:
            validate_repo_id(self.push_to_hub)
        check_least(self, block_size=1)

    def card_fields(self) -> dict[str, Any]:
        """Fields of the card."""
        summary = f"A small bi-encoder for product search, distilled from {Path(self.teacher).name}."
        return {**card_fields(self.student.base), "summary": summary}
