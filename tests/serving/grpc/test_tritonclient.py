"""Triton's own clients against a running server."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, service_pb2
from tritonclient.utils import InferenceServerException

from pdeinfer import __version__
from tests.conftest import GREY_PRESET, RGB_PRESET, Probabilities
from tests.images.image_makers import as_png
from tests.serving.tiny_models import PRESETS, images


@pytest.fixture(scope="module")
def triton(address: str) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(address) as client:
        yield client


def image_input(array: np.ndarray, datatype: str = "UINT8") -> InferInput:
    tensor = InferInput("image", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def test_health_and_metadata(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("tiny-grey")
    assert triton.is_model_ready("tiny-rgb", "1")
    assert not triton.is_model_ready("tiny-rgb", "2")
    assert not triton.is_model_ready("digits")
    server = triton.get_server_metadata(as_json=True)
    assert server == {"name": "pdeinfer", "version": __version__, "extensions": ["classification"]}
    model = triton.get_model_metadata("tiny-grey", as_json=True)
    assert (model["name"], model["versions"]) == ("tiny-grey", ["1"])
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": ["-1", "8", "8", "1"]}]
    assert model["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": ["-1", "10"]}]


def test_repository_index_lists_the_served_models(triton: InferenceServerClient) -> None:
    found = [(model.name, model.version, model.state) for model in triton.get_model_repository_index().models]

    assert found == [("tiny-grey", "1", "READY"), ("tiny-rgb", "1", "READY")]


@pytest.mark.parametrize("model", PRESETS)
@pytest.mark.parametrize("count", [1, 2, 64])
def test_every_model(triton: InferenceServerClient, tiny_probabilities: Probabilities, model: str, count: int) -> None:
    pixels = images(model, count)

    result = triton.infer(model, [image_input(pixels)], request_id="seven")

    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == (model, "1", "seven")
    found = result.as_numpy("probabilities")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tiny_probabilities(PRESETS[model], pixels), rtol=0, atol=1e-6)


def test_classification_gives_values_indices_and_labels(
    triton: InferenceServerClient, tiny_probabilities: Probabilities
) -> None:
    pixels = images("tiny-rgb", 5)
    outputs = [InferRequestedOutput("probabilities", class_count=2)]

    result = triton.infer("tiny-rgb", [image_input(pixels)], outputs=outputs).as_numpy("probabilities")

    assert result.shape == (5, 2)
    for row, probabilities in zip(result, tiny_probabilities(RGB_PRESET, pixels), strict=True):
        values, indices, labels = zip(*(text.decode().split(":") for text in row), strict=True)
        assert [int(index) for index in indices] == list(np.argsort(-probabilities)[:2])
        assert list(labels) == [RGB_PRESET.labels[int(index)] for index in indices]
        assert [float(value) for value in values] == pytest.approx(sorted(probabilities, reverse=True)[:2], abs=1e-6)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_requests_are_answered(
    triton: InferenceServerClient, tiny_probabilities: Probabilities, compression: str
) -> None:
    pixels = images("tiny-grey", 64)

    result = triton.infer("tiny-grey", [image_input(pixels)], compression_algorithm=compression)

    np.testing.assert_allclose(
        result.as_numpy("probabilities"), tiny_probabilities(GREY_PRESET, pixels), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("is_column", [False, True])
def test_encoded_images_are_classified(
    triton: InferenceServerClient,
    tiny_probabilities: Probabilities,
    is_column: bool,
) -> None:
    pixels = images("tiny-rgb", 3)
    files = np.array([as_png(image) for image in pixels], object)

    found = triton.infer("tiny-rgb", [image_input(files[:, np.newaxis] if is_column else files, "BYTES")])

    np.testing.assert_allclose(
        found.as_numpy("probabilities"), tiny_probabilities(RGB_PRESET, pixels), rtol=0, atol=1e-6
    )


def test_concurrent_calls_for_several_models_each_get_their_own_answer(
    address: str, tiny_probabilities: Probabilities
) -> None:
    async def infer(client: Any, number: int) -> None:
        model = "tiny-grey" if number % 3 else "tiny-rgb"
        pixels = images(model, 1 + number % 5, seed=number)
        result = await client.infer(model, [image_input(pixels)], request_id=f"{number}")
        assert result.get_response().id == f"{number}"
        np.testing.assert_allclose(
            result.as_numpy("probabilities"), tiny_probabilities(PRESETS[model], pixels), rtol=0, atol=1e-6
        )

    async def test() -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("tiny-rgb")
            await asyncio.gather(*(infer(client, number) for number in range(80)))

    asyncio.run(test())


def wrong_name() -> InferInput:
    tensor = InferInput("pixels", [1, 8, 8, 1], "UINT8")
    tensor.set_data_from_numpy(images("tiny-grey", 1))
    return tensor


def too_short() -> InferInput:
    tensor = image_input(images("tiny-grey", 1))
    tensor.set_shape([2, 8, 8, 1])
    return tensor


GREY = image_input(images("tiny-grey", 1))


@pytest.mark.parametrize(
    ("model", "tensors", "options", "status", "message"),
    [
        ("tiny-grey", [wrong_name()], {}, "INVALID_ARGUMENT", "the name in inputs: expected 'image', got 'pixels'"),
        ("tiny-grey", [GREY, GREY], {}, "INVALID_ARGUMENT", "the names in inputs: expected no name twice, got 'image'"),
        ("tiny-grey", [], {}, "INVALID_ARGUMENT", "inputs: expected one, 'image', got []"),
        (
            "tiny-grey",
            [image_input(np.zeros((1, 8, 8, 1), np.float32), "FP32")],
            {},
            "INVALID_ARGUMENT",
            "the datatype of 'image': expected UINT8 or BYTES, got 'FP32'",
        ),
        (
            "tiny-grey",
            [image_input(np.zeros((1, 9, 8, 1), np.uint8))],
            {},
            "INVALID_ARGUMENT",
            "the shape of 'image': expected [N, 8, 8, 1] with N from 1 to 64, got [1, 9, 8, 1]",
        ),
        (
            "tiny-grey",
            [image_input(np.zeros((65, 8, 8, 1), np.uint8))],
            {},
            "INVALID_ARGUMENT",
            "the shape of 'image': expected [N, 8, 8, 1] with N from 1 to 64, got [65, 8, 8, 1]",
        ),
        (
            "tiny-grey",
            [too_short()],
            {},
            "INVALID_ARGUMENT",
            "the binary data: expected 128 bytes, of shape [2, 8, 8, 1] and UINT8, got '64 bytes'",
        ),
        (
            "tiny-grey",
            [GREY],
            {"outputs": [InferRequestedOutput("logits")]},
            "INVALID_ARGUMENT",
            "the name in outputs: expected 'probabilities', got 'logits'",
        ),
        (
            "tiny-grey",
            [GREY],
            {"model_version": "7"},
            "NOT_FOUND",
            "no version '7' of 'tiny-grey' is served, only: 1",
        ),
        ("digits", [GREY], {}, "NOT_FOUND", "no model 'digits' is served, only: tiny-grey, tiny-rgb"),
        ("x" * 201, [GREY], {}, "INVALID_ARGUMENT", "a model: expected at most 200 characters"),
    ],
)
def test_errors_reach_the_client_with_their_status_and_text(
    triton: InferenceServerClient,
    model: str,
    tensors: list[InferInput],
    options: dict[str, Any],
    status: str,
    message: str,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        triton.infer(model, tensors, **options)

    assert caught.value.status() == f"StatusCode.{status}"
    code, _, text = caught.value.message().partition(": ")
    assert code == {"INVALID_ARGUMENT": "invalid_request"}.get(
        status, "version_not_found" if options else "model_not_found"
    )
    assert text.endswith(message)


def test_an_image_that_cannot_be_decoded_fails_the_call_and_is_named(triton: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="invalid_image: image 1: ") as caught:
        triton.infer("tiny-grey", [image_input(np.array([b"GIF89a"], object), "BYTES")])

    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_streams_are_refused_by_name(triton: InferenceServerClient) -> None:
    stub = triton._client_stub

    with pytest.raises(Exception, match="ModelStreamInfer is not supported") as caught:
        next(stub.ModelStreamInfer(iter([service_pb2.ModelInferRequest()])))

    assert caught.value.code().name == "UNIMPLEMENTED"


def test_other_operations_are_unimplemented(triton: InferenceServerClient) -> None:
    for call in (triton.load_model, triton.unload_model, triton.get_model_config):
        with pytest.raises(InferenceServerException) as caught:
            call("tiny-grey")
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
