"""Training: phases in tokens, schedules, StableAdamW, and a `Trainer` whose resume is exact."""

from __future__ import annotations

from rexbert_hf.training.adaptive_mixin import AdaptiveMaskingMixin
from rexbert_hf.training.adaptive_settings import AdaptiveSettings
from rexbert_hf.training.arguments import CurriculumArguments
from rexbert_hf.training.checkpoint import Checkpoint, CheckpointError, last_complete_checkpoint
from rexbert_hf.training.collation import PhaseCollator, register_masking
from rexbert_hf.training.faulty_step import FaultyStep, LossSpikeError
from rexbert_hf.training.flops import FlopCounter, measure_matmul_peak
from rexbert_hf.training.heldout import evaluate_masked
from rexbert_hf.training.interruption import TrainingInterrupted
from rexbert_hf.training.neighbor_settings import NeighborConfig
from rexbert_hf.training.neighbors import NeighborDataset
from rexbert_hf.training.optimizer import StableAdamW, parameter_groups
from rexbert_hf.training.phases import Curriculum, MaskingConfig, Phase, ScheduleConfig
from rexbert_hf.training.plan import PhasePlan, Plan, resolve
from rexbert_hf.training.reproducing import NonFiniteLossError
from rexbert_hf.training.schedules import schedule_factor
from rexbert_hf.training.trainer import CurriculumTrainer

__all__ = [
    "AdaptiveMaskingMixin",
    "AdaptiveSettings",
    "Checkpoint",
    "CheckpointError",
    "Curriculum",
    "CurriculumArguments",
    "CurriculumTrainer",
    "FaultyStep",
    "FlopCounter",
    "LossSpikeError",
    "MaskingConfig",
    "NeighborConfig",
    "NeighborDataset",
    "NonFiniteLossError",
    "Phase",
    "PhaseCollator",
    "PhasePlan",
    "Plan",
    "ScheduleConfig",
    "StableAdamW",
    "TrainingInterrupted",
    "evaluate_masked",
    "last_complete_checkpoint",
    "measure_matmul_peak",
    "parameter_groups",
    "register_masking",
    "resolve",
    "schedule_factor",
]
