"""Languages of a phase: shares by temperature over the whole phase, what is drawn for them, seek, and bad input."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.training import Curriculum, Phase, resolve
from rexbert_hf.training.languages import tokens_by_language, weigh_stores
from rexbert_hf.training.phases import LanguageSampling


def store(documents, tokens=10, **metadata):
    made = TokenisedDataset.from_rows([{"input_ids": np.arange(tokens, dtype=np.int32)}] * documents)
    made.metadata |= metadata
    return made


SIZES = {"en": 9_000, "de": 3_000, "id": 200}
STORES = {
    "english": store(900, language="en"),
    "many.de": store(250, language="de", source="many"),
    "many.id": store(20, language="id", source="many"),
    "german": store(50, language="de"),
}
MIXTURE = {"english": 1, "many": 1, "german": 1}


def phase(mixture=None, temperature=0.5, only=None, **options):
    options = {"max_tokens": 20_000, "seq_length": 32, "batch_tokens": 640, **options}
    sampling = LanguageSampling(temperature, only)
    return Phase("mixed", mixture or MIXTURE, languages=sampling, **options)


def order_of(one, **options):
    return resolve(Curriculum([one], **options), STORES).phases[0]


def expected_share(sizes, temperature):
    powers = {code: size**temperature for code, size in sizes.items()}
    return {code: power / sum(powers.values()) for code, power in powers.items()}


def test_a_language_has_its_share_whatever_its_sources():
    weights = weigh_stores(phase(), STORES)
    shares = expected_share(SIZES, 0.5)
    assert weights["english"] == pytest.approx([shares["en"]] * 2)
    assert weights["many.id"] == pytest.approx([shares["id"]] * 2)
    assert weights["many.de"] == pytest.approx([shares["de"] * 2500 / 3000] * 2)
    assert weights["german"] == pytest.approx([shares["de"] * 500 / 3000] * 2)


@pytest.mark.parametrize(("first", "last"), [(0.7, 0.3), (1.0, 0.0)])
def test_the_temperature_falls_through_the_phase(first, last):
    """The shares at any point, against the formula; between the points of the curve it is followed to .001."""
    mixture = order_of(phase(temperature=[first, last])).order.mixture
    for t in np.linspace(0, 1, 101):
        shares = expected_share(SIZES, first + (last - first) * t)
        found = dict(zip(mixture.names, mixture.shares(t), strict=True))
        assert found["english"] == pytest.approx(shares["en"], abs=0.001)
        assert found["many.id"] == pytest.approx(shares["id"], abs=0.001)
        assert found["many.de"] + found["german"] == pytest.approx(shares["de"], abs=0.001)


def test_weights_multiply_the_tokens_of_a_source():
    weights = weigh_stores(phase({"english": [1, 0], "german": 2}, temperature=1.0), STORES)
    assert weights["english"][0] == pytest.approx(9_000 / 10_000)
    assert weights["german"][0] == pytest.approx(1_000 / 10_000)
    middle = len(weights["english"]) // 2
    assert weights["english"][middle] == pytest.approx(4_500 / 5_500)
    assert (weights["english"][-1], weights["german"][-1]) == (0.0, 1.0)


def test_at_temperature_one_all_languages_end_an_epoch_together():
    found = order_of(phase(temperature=1.0, max_tokens=12_200))
    assert {code: of["epochs"] for code, of in tokens_by_language(found.order, found.languages).items()} == {
        "en": 1.0,
        "de": 1.0,
        "id": 1.0,
    }


def test_without_a_temperature_the_weight_of_a_source_is_shared_by_its_languages():
    plain = Phase("plain", {"english": 0.4, "many": [0.6, 0.3]}, max_tokens=1000, seq_length=32, batch_tokens=640)
    weights = weigh_stores(plain, STORES)
    assert weights["english"] == [0.4, 0.4]
    assert weights["many.de"] == pytest.approx([0.6 * 250 / 270, 0.3 * 250 / 270])
    assert weights["many.id"] == pytest.approx([0.6 * 20 / 270, 0.3 * 20 / 270])


def test_only_some_languages():
    weights = weigh_stores(phase(only=["en", "id"]), STORES)
    shares = expected_share({"en": 9_000, "id": 200}, 0.5)
    assert {name: points[0] for name, points in weights.items()} == pytest.approx(
        {"english": shares["en"], "many.id": shares["id"]}
    )
    no_temperature = weigh_stores(phase({"many": 1}, temperature=None, only=["id"]), STORES)
    assert no_temperature == {"many.id": [1.0, 1.0]}


def drawn_tokens(order, steps=None):
    found = dict.fromkeys(order.names, 0)
    for step in range(order.num_steps) if steps is None else steps:
        for micro in range(order.micro_batches):
            for draw in order.micro(step, micro):
                found[draw.source] += int((draw.stops - draw.starts + 2).sum())
    return found


def test_what_is_reported_is_what_is_drawn():
    """Counted from the batches: each group of bins may be off by a document a store."""
    found = order_of(phase(temperature=[0.7, 0.2]))
    reported = tokens_by_language(found.order, found.languages)
    drawn = drawn_tokens(found.order)
    by_language = {"en": drawn["english"], "id": drawn["many.id"], "de": drawn["many.de"] + drawn["german"]}
    for code, tokens in by_language.items():
        assert reported[code]["tokens"] == pytest.approx(tokens, abs=40 * (found.order.num_groups + 1))
        assert reported[code]["epochs"] == pytest.approx(reported[code]["tokens"] / SIZES[code], abs=3e-3)
    assert sum(of["tokens"] for of in reported.values()) == pytest.approx(20_000, abs=3)
    assert reported["id"]["epochs"] > 5  # 200 tokens, some 7 % of 20,000
    assert reported["id"]["share_end"] > reported["id"]["share_start"]


def test_any_step_is_found_without_those_before_it():
    one = phase(temperature=[0.9, 0.1], max_tokens=60_000)
    whole = order_of(one, micro_batch_tokens=320).order
    in_sequence = {(step, micro): whole.micro(step, micro) for step in range(whole.num_steps) for micro in range(2)}
    other = pickle.loads(pickle.dumps(order_of(one, micro_batch_tokens=320).order))
    assert other.fingerprint == whole.fingerprint
    for key in [(whole.num_steps - 1, 1), (0, 0), (whole.num_steps // 2, 1)]:
        for found, wanted in zip(other.micro(*key), in_sequence[key], strict=True):
            assert found.source == wanted.source
            assert np.array_equal(found.indices, wanted.indices)


def test_another_temperature_is_another_plan():
    plans = [
        resolve(Curriculum([phase(temperature=tau)]), STORES).description() for tau in (0.5, [0.5, 0.5], [0.5, 0.4])
    ]
    assert plans[0]["phases.0.samples"] == plans[1]["phases.0.samples"] != plans[2]["phases.0.samples"]
    plain = Phase("mixed", MIXTURE, max_tokens=1000, seq_length=32, batch_tokens=640)
    names = resolve(Curriculum([plain]), STORES).description()
    assert not [key for key in names if "languages" in key]  # runs of older versions can go on


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: phase(temperature=-1), r"temperature must be a number >= 0 or \[start, end\]; got -1"),
        (lambda: phase(temperature=[1, 2, 3]), r"temperature must be a number >= 0"),
        (lambda: phase(only=[]), "only names no language"),
        (
            lambda: weigh_stores(phase(only=["en", "th"]), STORES),
            "'th', of which its .*have de, en, id",
        ),
        (lambda: weigh_stores(phase({"web": 1}), STORES), "names the source 'web', but the data has english, german"),
        (
            lambda: weigh_stores(phase({"english": 1, "plain": 1}), STORES | {"plain": store(3)}),
            "needs the language of the source 'plain': set sources.plain.language",
        ),
        (
            lambda: weigh_stores(phase({"none": 1}), STORES | {"none": store(0, language="th")}),
            "the source 'none' holds no documents",
        ),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
