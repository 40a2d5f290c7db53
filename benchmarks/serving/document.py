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
SECTIONS = {
    "Measured": (
        """Medians over the rounds. Linux may share CPUs by session (`/proc/sys/kernel/sched_autogroup_enabled`), of
which Ray Serve and `pdeinfer --workers` have several: for the run of 2026-11-22 that was off, and nothing else ran.""",
        ["-m", "benchmarks.serving"],
    )
}
ENDING = """## Against the goals

Of the run of 2026-11-22. The goals were twice the best peer's throughput at no higher p99, and 70 % of what a
Predictor does in a process.

- **Twice the best peer: not met.** The best is Ray Serve. Of single images `pdeinfer --workers` answers 1.0 to 1.6
  times as many as it does, at a lower p99, and 1.8 to 3.9 times as many as the others; with 32 images in a request 0.9
  times as many, at a higher p99. Over V2 it answers 2.6 times as many as MLServer, at a fifth of the p99.
- **70 % of the Predictor: met with 32 images in a request** (83 %), **not with one** (56 %).

It is ready first; one process of it takes the least memory.

What stands in the way, as far as it is known:

- A single image costs `pdeinfer serve` about 500 microseconds of CPU; to decode and compute takes 200 of them (the
  smallest of twelve windows of a quarter of a second, on a busy machine). The rest is Python between socket and thread.
- One process has one interpreter lock: `--workers`, a process for each CPU, answers up to 1.7 times as many.
- With `--workers` the kernel spreads connections at random: of four, one worker may get all. HAProxy spreads requests.

## Where the time goes

Of one process, 32 connections, one image in a request, with the load generator beside it and other work on the machine
(load average 5): 400 stacks per second, those of threads that wait for work left out, and grouped by function.

```sh
py-spy record --duration 6 --rate 400 --format raw --output stacks.txt --pid PID    # py-spy 0.4.3
```

| | share of the stacks |
|---|---:|
| the event loop itself, receiving | 19 % |
| middlewares, routing | 16 % |
| queue, hand-over between threads | 13 % |
| ONNX Runtime, stacking | 12 % |
| sending | 10 % |
| ranking, JSON | 9 % |
| decoding | 7 % |
| parsing HTTP | 6 % |
| reading the body | 4 % |
| the operation itself, the rest | 4 % |

py-spy stops the process to read a stack, which made it slower, and what runs outside of Python is seen too seldom.

A first profile led to these changes, all of them in the figures above: an answer is sent by one system call where
uvicorn makes two (the first took 17 % of the time in which Python ran); requests with plain parameters go past
FastAPI's routing and parsing (about 20 %); forms as clients write them are split at their boundary, 2 microseconds per
file; no span is made where nobody traces; the garbage collector leaves alone what is loaded (it took 4 %). To decode
and compute in one go on one thread was tried: it made hardly any difference on 32 connections, and was left out.
"""


def main() -> int:
    """Run the benchmark and write the page; return its exit code."""
    argparse.ArgumentParser(prog="python -m benchmarks.serving.document", description=__doc__).parse_args()
    return write_page(PAGE, INTRODUCTION, SECTIONS, ENDING)


if __name__ == "__main__":
    sys.exit(main())
