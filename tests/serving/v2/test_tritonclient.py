"""Triton's own client against a running server."""

import re
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from pdeinfer import __version__
from tests.conftest import GREY_PRESET, RGB_PRESET, Probabilities, write_tiny_package
from tests.images.image_makers import as_png
from tests.servers import ROOT, running_server
from tests.serving.tiny_models import PRESETS, images


@pytest.fixture(scope="module")
def triton(
    package_folder: Path, rgb_package_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InferenceServerClient]:
    log = tmp_path_factory.mktemp("server") / "log"
    with (
        running_server(log, str(package_folder), str(rgb_package_folder)) as server,
        InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=8) as client,
    ):
        yield client


def image_input(pixels: np.ndarray, *, binary: bool = True, datatype: str = "UINT8") -> InferInput:
    tensor = InferInput("image", list(pixels.shape), datatype)
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


def infer(triton: InferenceServerClient, model: str, pixels: np.ndarray, **options: Any) -> InferResult:
    return triton.infer(model, [image_input(pixels)], **options)


def test_health_and_metadata(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("tiny-grey")
    assert triton.is_model_ready("tiny-rgb", "1")
    assert not triton.is_model_ready("tiny-rgb", "2")
    assert not triton.is_model_ready("digits")
    server = triton.get_server_metadata()
    assert (server["name"], server["version"]) == ("pdeinfer", __version__)
    model = triton.get_model_metadata("tiny-grey")
    assert model == triton.get_model_metadata("tiny-grey", "1")
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    assert model["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}]
    configuration = triton.get_model_config("tiny-grey")
    assert configuration["max_batch_size"] == 64
    assert configuration["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": [8, 8, 1]}]


@pytest.mark.parametrize("model", PRESETS)
@pytest.mark.parametrize("count", [1, 2, 64])
@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
def test_every_model_in_every_format(
    triton: InferenceServerClient,
    tiny_probabilities: Probabilities,
    model: str,
    count: int,
    binary_input: bool,
    binary_output: bool | None,
) -> None:
    pixels = images(model, count)
    outputs = None if binary_output is None else [InferRequestedOutput("probabilities", binary_data=binary_output)]

    result = triton.infer(model, [image_input(pixels, binary=binary_input)], outputs=outputs, request_id="seven")

    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == (model, "1", "seven")
    found = result.as_numpy("probabilities")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tiny_probabilities(PRESETS[model], pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_classification_gives_values_indices_and_labels(
    triton: InferenceServerClient, tiny_probabilities: Probabilities, binary: bool
) -> None:
    pixels = images("tiny-rgb", 5)
    output = InferRequestedOutput("probabilities", binary_data=binary, class_count=2)

    result = infer(triton, "tiny-rgb", pixels, outputs=[output]).as_numpy("probabilities")

    assert result.shape == (5, 2)
    expected = tiny_probabilities(RGB_PRESET, pixels)
    for row, probabilities in zip(result, expected, strict=True):
        texts = [text.decode() if isinstance(text, bytes) else text for text in row]
        values, indices, labels = zip(*(text.split(":") for text in texts), strict=True)
        assert [int(index) for index in indices] == list(np.argsort(-probabilities)[:2])
        assert list(labels) == [RGB_PRESET.labels[int(index)] for index in indices]
        assert [float(value) for value in values] == pytest.approx(sorted(probabilities, reverse=True)[:2], abs=1e-6)


@pytest.mark.parametrize("request_compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_compression", [None, "gzip", "deflate"])
def test_compression_in_both_directions(
    triton: InferenceServerClient,
    tiny_probabilities: Probabilities,
    request_compression: str | None,
    response_compression: str | None,
) -> None:
    pixels = images("tiny-grey", 64)

    result = infer(
        triton,
        "tiny-grey",
        pixels,
        request_compression_algorithm=request_compression,
        response_compression_algorithm=response_compression,
    )

    np.testing.assert_allclose(
        result.as_numpy("probabilities"), tiny_probabilities(GREY_PRESET, pixels), rtol=0, atol=1e-6
    )


def test_concurrent_requests_for_several_models_each_get_their_own_answer(
    triton: InferenceServerClient, tiny_probabilities: Probabilities
) -> None:
    sent = []
    for number in range(80):
        model = "tiny-grey" if number % 3 else "tiny-rgb"
        pixels = images(model, 1 + number % 5, seed=number)
        tensor = image_input(pixels, binary=number % 2 == 0)
        sent.append((model, pixels, triton.async_infer(model, [tensor], request_id=f"{number}")))

    for number, (model, pixels, pending) in enumerate(sent):
        result = pending.get_result(timeout=20)
        assert result.get_response()["id"] == f"{number}"
        assert result.get_response()["model_name"] == model
        np.testing.assert_allclose(
            result.as_numpy("probabilities"), tiny_probabilities(PRESETS[model], pixels), rtol=0, atol=1e-6
        )


def wrong_name() -> InferInput:
    tensor = InferInput("pixels", [1, 8, 8, 1], "UINT8")
    tensor.set_data_from_numpy(images("tiny-grey", 1))
    return tensor


@pytest.mark.parametrize(
    ("tensors", "options", "status", "message"),
    [
        ([wrong_name()], {}, "400", "the name in inputs: expected 'image', got 'pixels'"),
        (
            [image_input(np.zeros((1, 8, 8, 1), np.float32), datatype="FP32")],
            {},
            "400",
            "the datatype of 'image': expected UINT8 or BYTES, got 'FP32'",
        ),
        (
            [image_input(np.zeros((1, 9, 8, 1), np.uint8))],
            {},
            "400",
            "the shape of 'image': expected [N, 8, 8, 1] with N from 1 to 64, got [1, 9, 8, 1]",
        ),
        (
            [image_input(np.zeros((65, 8, 8, 1), np.uint8))],
            {},
            "400",
            "the shape of 'image': expected [N, 8, 8, 1] with N from 1 to 64, got [65, 8, 8, 1]",
        ),
        (
            [image_input(images("tiny-grey", 1))],
            {"outputs": [InferRequestedOutput("logits")]},
            "400",
            "the name in outputs: expected 'probabilities', got 'logits'",
        ),
        (
            [image_input(images("tiny-grey", 1))],
            {"model_version": "7"},
            "404",
            "no version '7' of 'tiny-grey' is served, only: 1",
        ),
    ],
)
def test_errors_reach_the_client_with_their_status_and_text(
    triton: InferenceServerClient, tensors: list[InferInput], options: dict[str, Any], status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        triton.infer("tiny-grey", tensors, **options)

    assert (caught.value.status(), caught.value.message()) == (status, message)


def test_encoded_images_are_classified_and_a_broken_one_fails_the_request(
    triton: InferenceServerClient, tiny_probabilities: Probabilities
) -> None:
    pixels = images("tiny-rgb", 3)
    files = np.array([as_png(image) for image in pixels], object)

    found = triton.infer("tiny-rgb", [image_input(files, datatype="BYTES")]).as_numpy("probabilities")

    np.testing.assert_allclose(found, tiny_probabilities(RGB_PRESET, pixels), rtol=0, atol=1e-6)
    files[1] = b"GIF89a"
    with pytest.raises(InferenceServerException, match="image 2: ") as caught:
        triton.infer("tiny-rgb", [image_input(files, datatype="BYTES")])
    assert caught.value.status() == "422"


def test_repository_index_lists_the_served_models(triton: InferenceServerClient) -> None:
    found = [(model["name"], model["version"], model["state"]) for model in triton.get_model_repository_index()]

    assert found == [("tiny-grey", "1", "READY"), ("tiny-rgb", "1", "READY")]


def test_unknown_model_and_unsupported_extension_are_404(triton: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="no model 'digits' is served, only: tiny-grey, tiny-rgb"):
        infer(triton, "digits", images("tiny-grey", 1))
    with pytest.raises(InferenceServerException, match="Not Found"):
        triton.load_model("tiny-grey")


def test_the_example_prints_labels_with_colons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tuple(f"digit: {number}" for number in range(10))
    folder = write_tiny_package(tmp_path / "colons", replace(GREY_PRESET, name="colons", labels=labels))
    with running_server(tmp_path / "log", str(folder)) as server:
        monkeypatch.setattr(sys, "argv", ["", f"127.0.0.1:{server.port}", "colons", str(ROOT / "examples/seven.png")])
        runpy.run_path(str(ROOT / "examples/triton_client.py"))
    assert re.search(r"seven\.png: digit: \d \(", capsys.readouterr().out)
