"""Classify images with Triton's client (pip install 'tritonclient[http]' pillow):

python examples/triton_client.py 127.0.0.1:8000 digits-pde examples/seven.png examples/three.png
"""

import sys

import numpy as np
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

server, model, *paths = sys.argv[1:]
with InferenceServerClient(server) as client:
    _, height, width, channels = client.get_model_metadata(model)["inputs"][0]["shape"]
    images = [Image.open(path).convert("L" if channels == 1 else "RGB").resize((width, height)) for path in paths]
    pixels = np.stack([np.asarray(image) for image in images]).reshape(-1, height, width, channels)

    tensor = InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    best = InferRequestedOutput("probabilities", class_count=1)
    result = client.infer(model, [tensor], outputs=[best], response_compression_algorithm="gzip")

    for path, (text,) in zip(paths, result.as_numpy("probabilities"), strict=True):
        probability, _, label = text.decode().split(":", 2)
        print(f"{path}: {label} ({float(probability):.1%})")
