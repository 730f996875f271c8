"""What answers queries: indexes over FAISS and Qdrant, filters, BM25, ONNX encoders without torch."""

from __future__ import annotations
