"""Errors that the OpenAPI document shows in several places."""

from pdeinfer.images.formats import EXPECTED
from serving.errors import ModelNotServedError, RequestError

BODY_TOO_LARGE = RequestError("body_too_large", "a request body may have at most 33554432 bytes")
UNSUPPORTED_ENCODING = RequestError(
    "unsupported_content_encoding", "expected the content encoding gzip or deflate, got 'br'"
)
NO_SUCH_MODEL = ModelNotServedError("no model 'digits' is served, only: digits-pde, mnist-pde")
IMAGE_ERRORS = (
    RequestError("invalid_image", f"notes.txt: expected {EXPECTED}, got a file of no known image format"),
    RequestError("image_too_large", "map.png: expected at most 64000000 pixels, got 30000 x 30000"),
    RequestError("image_too_costly", "map.png: decoding it took more than 5 s of CPU time: save it again as a PNG"),
)
