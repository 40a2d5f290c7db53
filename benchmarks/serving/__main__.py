"""`make bench-serving`: compares pdeinfer's server with LitServe, BentoML, MLServer and Ray Serve on one model."""

import argparse
import sys
from pathlib import Path

from benchmarks.markdown import machine
from benchmarks.serving.cases import CASES, draw_sample
from benchmarks.serving.environments import PeerNotInstalledError, python_of
from benchmarks.serving.report import print_results
from benchmarks.serving.rounds import measure
from benchmarks.serving.servers import OURS, PEERS, Peer
from pdeinfer import PdeinferError
from pdeinfer.package import zoo


def main() -> int:
    """Run the benchmark, and return the exit code: 2 if a server cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS), help="separated by commas; empty: none (%(default)s)")
    parser.add_argument("--model", default="cifar10-global", help="a bundled model (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in each round (%(default)s)")
    arguments = parser.parse_args()
    names = [name for name in arguments.peers.split(",") if name]
    if unknown := set(names) - PEERS.keys():
        parser.error(f"expected peers among {', '.join(PEERS)}, got {', '.join(sorted(unknown))}")

    servers: dict[Peer, Path] = {OURS: Path(sys.executable)}
    left_out = []
    for name in names:
        try:
            servers[PEERS[name]] = python_of(name)
        except PeerNotInstalledError as error:
            left_out.append(f"Left out: {error}\n")
    try:
        sample = draw_sample(zoo.load(arguments.model))
        results = measure(servers, CASES, sample, rounds=arguments.rounds, seconds=arguments.seconds)
    except (PdeinferError, RuntimeError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print(machine(), *left_out, sep="\n")
    print_results(results, list(servers), CASES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
