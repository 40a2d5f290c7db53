"""MLServer: V2 with images as BYTES in base64 or as UINT8 pixels; adaptive batching."""

import numpy as np
from classifier import CPUS, Classifier
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    """Answers with the probabilities: a label is the client's to look up."""

    async def load(self) -> bool:
        self.classifier = Classifier(threads=CPUS)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (tensor,) = payload.inputs
        if tensor.datatype == "BYTES":
            pixels = self.classifier.pixels(Base64Codec.decode_input(tensor))
        else:
            pixels = NumpyCodec.decode_input(tensor).astype(np.uint8, copy=False)
        output = NumpyCodec.encode_output("probabilities", self.classifier.probabilities(pixels))
        return InferenceResponse(model_name=self.name, outputs=[output])
