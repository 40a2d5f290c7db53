"""What computes the answers to requests and encodes them."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pdeinfer import ImageError
from serving.engine.deadline import until
from serving.engine.served_model import RANKED_AT_ONCE, ServedModel
from serving.engine.threads import Threads
from serving.errors import RequestError
from serving.interface.tensors import InferenceRequest

R = TypeVar("R")

MAX_MODEL_NAME = 200  # characters of a name in a request


async def run_inference(
    served: ServedModel, inference: InferenceRequest, deadline: float
) -> dict[str, NDArray[np.float32]]:
    """Return the outputs that a request asks for, float32 (N, ...), by name.

    Raises:
        RequestError: an image cannot be decoded.
        OverloadedError, DeadlineError, InferenceError: as `ServedModel.infer` raises them.
    """
    try:
        return await served.infer(inference.images, [output.name for output in inference.outputs], deadline)
    except ImageError as error:
        error.__traceback__ = None  # its frames hold the images and, through them, the error itself
        raise RequestError(error.code, str(error)) from None


def count_numbers(results: Mapping[str, NDArray[np.float32]]) -> int:
    """Return how many numbers the outputs have."""
    return sum(rows.size for rows in results.values())


async def encode(threads: Threads, function: Callable[[], R], numbers: int, deadline: float | None = None) -> R:
    """Return `function()`, which encodes an answer, computed in a thread if there is much to encode.

    Args:
        numbers: of the answer.
        deadline: when to give up waiting for a thread, on the event loop's clock; None: never.

    Raises:
        DeadlineError: no thread was free in time.
    """
    if numbers <= RANKED_AT_ONCE:
        return function()
    return await until(deadline, threads.run(function))
