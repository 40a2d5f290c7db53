"""A report of a comparison: what passes, its JSON in cards, and its table."""

from dataclasses import replace

import pytest

from pdeinfer.checks.report import Comparison, Report
from pdeinfer.package import zoo

PROBABILITIES = Report(
    "probabilities",
    "Keras",
    "model.onnx",
    1e-5,
    (
        Comparison("noise", 16, 1e-7, 1e-5, batch_size=1, top1_equal=16),
        Comparison("noise", 128, 2e-6, 3e-5, batch_size=64, top1_equal=128),
    ),
)
FIELDS = Report("fields", "Keras", "fields.onnx", 1e-5, (Comparison("layer1/u", 68, 4e-5, 8e-6, largest=5.0),))
INT8 = replace(PROBABILITIES, candidate="model.int8.onnx", tolerance=None)


def with_row(report: Report, **changes: float | None) -> Report:
    return replace(report, comparisons=(replace(report.comparisons[0], **changes), *report.comparisons[1:]))


@pytest.mark.parametrize("report", [PROBABILITIES, FIELDS, INT8])
def test_differences_within_the_tolerance_pass(report: Report) -> None:
    assert report.passed


def test_probabilities_are_limited_absolutely_and_fields_relatively() -> None:
    assert not with_row(PROBABILITIES, max_absolute=2e-5).passed
    assert with_row(PROBABILITIES, max_relative=1.0).passed
    assert not with_row(FIELDS, max_relative=2e-5).passed
    assert with_row(FIELDS, max_absolute=1.0).passed


def test_another_label_fails_only_with_a_tolerance() -> None:
    assert not with_row(PROBABILITIES, top1_equal=15).passed
    assert with_row(INT8, top1_equal=15, max_absolute=0.9).passed


@pytest.mark.parametrize("report", [PROBABILITIES, FIELDS, INT8])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_difference_that_is_not_finite_fails(report: Report, value: float) -> None:
    broken = with_row(report, max_absolute=value, max_relative=value)
    assert not broken.passed
    assert broken.to_dict()["comparisons"][0]["max_absolute"] is None


def test_a_report_without_rows_fails() -> None:
    assert not replace(PROBABILITIES, comparisons=()).passed


def test_the_json_has_the_keys_of_older_cards() -> None:
    parity = zoo.load("digits-pde").card.parity
    older = {"fields" if name.startswith("fields") else "probabilities": report for name, report in parity.items()}
    for report in (PROBABILITIES, FIELDS):
        values, expected = report.to_dict(), older[report.subject]
        assert values.keys() == expected.keys()
        assert values["comparisons"][0].keys() == expected["comparisons"][0].keys()


def test_the_table_has_a_line_per_set_of_images_or_field() -> None:
    header, _, *lines = str(PROBABILITIES).splitlines()
    assert header == "model.onnx against Keras, tolerance 1e-05"
    assert [line.split() for line in lines] == [
        ["noise", "1,", "64", "144", "2.0e-06", "3.0e-05", "144/144"],
        ["equal"],
    ]
    *_, line, verdict = str(FIELDS).splitlines()
    assert (line.split(), verdict) == (["layer1/u", "68", "4.0e-05", "8.0e-06", "5"], "  equal")


def test_the_summary_names_the_difference_and_the_equal_labels() -> None:
    assert PROBABILITIES.summary == "model.onnx within 2.0e-06 of Keras"
    assert FIELDS.summary == "fields.onnx within 8.0e-06 (relative) of Keras"
    assert with_row(PROBABILITIES, max_absolute=1.001e-5).summary == "model.onnx within 1.1e-05 of Keras"
    assert with_row(PROBABILITIES, max_absolute=float("nan")).summary == "model.onnx within nan of Keras"
    assert with_row(INT8, top1_equal=1).summary.endswith(", 129 of 144 labels the same")
    assert with_row(INT8, count=10_000, top1_equal=9_997).summary.endswith(", 10,125 of 10,128 labels the same")
