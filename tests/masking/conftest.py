from __future__ import annotations

import pytest
from masking_cases import word_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return word_tokenizer()
