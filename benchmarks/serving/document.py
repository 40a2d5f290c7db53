"""Writes docs/serving-performance.md from what the benchmark prints."""

import sys

from benchmarks.document import Section, write_page
from benchmarks.serving.environments import ROOT

PAGE = ROOT / "docs/serving-performance.md"
INTRODUCTION = """# Serving performance

`make bench-serving` writes this page. It makes an environment for each peer in `build/peers`, with the versions of
`benchmarks/serving/requirements-*.txt`, and runs the command below.

Every server classifies the same images with the same `pdeinfer.Predictor` and its fused operator on the same two CPUs;
only the serving differs. Images are random PNG files of the network's size; the answer is the top label and the
probabilities of all classes. Before timing, every server answers every request with the Predictor's label and its
probabilities within 1e-5; while timing, every status and about fifty answers are checked. The servers take turns in a
rotating order and restart every round. A Predictor alone in a process is timed on the same files before and after each
turn. Batches hold at most 32 requests or images. Access logs are off.

- `pdeinfer` is `pdeinfer serve` with its defaults: a worker for each CPU. One image is the request's body; 32 are a
  form.
- LitServe (`peers/litserve_app.py`) has two workers, two HTTP processes and ZeroMQ (`fast_queue`), and takes JSON with
  base64. It waits 1 ms for a batch: with 0, its idle workers spin.
- BentoML (`peers/bentoml_app.py`) has two workers and adaptive batching, and takes JSON with base64.
- MLServer (`peers/mlserver_model.py`) runs the model in its own process on two ONNX Runtime threads, waits 1 ms for a
  batch, takes V2 with BYTES in base64 and returns the probabilities alone. It takes binary tensors over gRPC only, so
  its pixels are JSON.
- Ray Serve (`peers/ray_app.py`) has two replicas behind HAProxy and its throughput-optimised settings. One image is the
  request's body; 32 are JSON with base64.

The load generator (`load.py`), asyncio on one CPU, shares the two CPUs with the server. The last table says how
much of a CPU it used, the last line how many answers it gets from a server that does nothing else.

[The notes](lab/serving.md) compare the figures with the goals and show where the time goes.
"""
SECTIONS = [Section("Measured", "Medians over the rounds.", ("-m", "benchmarks.serving"))]


def main() -> int:
    """Run the benchmark and write the page; return its exit code."""
    return write_page(__doc__, PAGE, INTRODUCTION, SECTIONS)


if __name__ == "__main__":
    sys.exit(main())
