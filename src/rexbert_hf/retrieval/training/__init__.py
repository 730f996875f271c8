"""Bi-encoders, re-rankers and their teachers: query-product pre-finetuning, fine-tuning, distillation."""

from __future__ import annotations
