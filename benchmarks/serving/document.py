"""Writes docs/serving-performance.md: what the benchmark says, and where the time of a request goes."""

import argparse
import sys

from benchmarks.document import write_page
from benchmarks.serving.environments import ROOT

PAGE = ROOT / "docs/serving-performance.md"
INTRODUCTION = """# The server beside others

Written by `make bench-serving`, which makes an environment for each peer in `build/peers` with the versions of
[requirements-*.txt](../benchmarks/serving), and runs the command below.

Every server classifies the same images by the same `pdeinfer.Predictor`, with its fused operator, on the same two CPUs:
what is compared is the serving. Images are random, of the network's size, as PNG; the answer is the top label and the
probabilities of all classes. Before anything is timed, each server has answered every request, and each answer had the
Predictor's label and its probabilities within 1e-5; of what is timed, every status and about fifty answers are checked.
The servers take turns, in an order that rotates; each is started anew in every round. Batches have at most 32 requests
or images. Access logs are off.

- `pdeinfer` is `pdeinfer serve`, one process with two threads; `pdeinfer --workers` is `pdeinfer serve --workers 2`. An
  image is the body of its request, 32 are a form.
- [LitServe](../benchmarks/serving/peers/litserve_app.py) has two workers, as many HTTP processes and ZeroMQ
  (`fast_queue`), and takes JSON with base64. It waits 1 ms for a batch: with 0, its workers spin while they are idle.
- [BentoML](../benchmarks/serving/peers/bentoml_app.py) has two workers and adaptive batching, and takes JSON with
  base64.
- [MLServer](../benchmarks/serving/peers/mlserver_model.py) runs the model in its own process on two threads of ONNX
  Runtime (with parallel workers it was slower here in one rough run), waits 1 ms for a batch, and takes V2 with BYTES
  in base64. It answers the probabilities alone. Binary tensors it takes over gRPC only: its pixels are JSON.
- [Ray Serve](../benchmarks/serving/peers/ray_app.py) has two replicas behind HAProxy and its throughput-optimised
  settings. An image is the body of its request, 32 are JSON with base64.

The [load generator](../benchmarks/serving/load.py), asyncio on one CPU, shares the two CPUs with the server. The last
tables say how much of one CPU it used, and what it gets from a server that does nothing but answer.
"""
SECTIONS = {"Measured": ("Medians over the rounds.", ["-m", "benchmarks.serving"])}
ENDING = """## Where the time goes
"""


def main() -> int:
    """Run the benchmark and write the page; return its exit code."""
    argparse.ArgumentParser(prog="python -m benchmarks.serving.document", description=__doc__).parse_args()
    return write_page(PAGE, INTRODUCTION, SECTIONS, ENDING)


if __name__ == "__main__":
    sys.exit(main())
