# The HTTP server with the bundled models, without TensorFlow.
#
#   docker build --tag pdeinfer .
#   docker run --rm --publish 8000:8000 --read-only --tmpfs /tmp pdeinfer
#   docker run --rm --publish 8000:8000 --volume ./build/mnist-pde:/models/mnist-pde:ro pdeinfer /models/mnist-pde
#
# On a GPU (ONNX Runtime brings CUDA and cuDNN as wheels, so the base image is the same):
#
#   docker build --tag pdeinfer:gpu --build-arg EXTRA=gpu .
#   docker run --rm --publish 8000:8000 --gpus all pdeinfer:gpu --device cuda

FROM python:3.13-slim AS build
WORKDIR /src
# The compiler of the fused operator, in Debian's current version.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends g++ && \
    rm -rf /var/lib/apt/lists/*
COPY requirements/constraints.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint requirements/constraints.txt build hatchling
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY pdeinfer pdeinfer
COPY serving serving
COPY training training
RUN python -m build --wheel --no-isolation --outdir /dist
# The extra that brings ONNX Runtime, cpu or gpu, and others: cpu,heic.
ARG EXTRA=cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/pdeinfer && \
    pip --python /opt/pdeinfer/bin/python install --constraint requirements/constraints.txt \
        "$(echo /dist/*.whl)[$EXTRA,serve]"

FROM python:3.13-slim
COPY --from=build /opt/pdeinfer /opt/pdeinfer
ENV PATH=/opt/pdeinfer/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
USER 10001:10001
EXPOSE 8000
LABEL org.opencontainers.image.title="pdeinfer" \
      org.opencontainers.image.description="HTTP server of compact image classifiers with PDE layers" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# It starts no Python: bash asks over /dev/tcp. 401 means that the server is up and its probes need a key
# (--probes-need-key).
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r -t 2 _ status _ <&3 && [[ $status == 200 || $status == 401 ]]"]
ENTRYPOINT ["pdeinfer", "serve", "--host", "0.0.0.0", "--port", "8000"]
