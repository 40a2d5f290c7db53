"""Measures `pdeinfer classify` beside decoding and inference alone, on the same images and all CPUs.

    python -m benchmarks.offline

Both take turns. Alone means: one process for each CPU, each with a Predictor of one thread and its share of the images,
timed from when all are ready until the last is done. The command is timed as a whole: its start, listing the images,
writing, joining.
"""

import argparse
import io
import multiprocessing
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.isolation import encode
from benchmarks.machine import describe
from benchmarks.targets import TARGET_MISSED, Target
from pdeinfer.predictor import Predictor
from pdeinfer.runtime.cpus import available_cpus

MODEL = "cifar10-global"
REQUIRED = 0.8
FILES = 1000  # of each kind; sources name them several times
KINDS = {
    "PNG 32 x 32": ((32, 32), "PNG", 40),
    "JPEG 640 x 480": ((640, 480), "JPEG", 6),
}


def main() -> int:
    """Print a row for each kind of source, and return 3 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    rounds = parser.parse_args().rounds
    print("\n".join(describe()))
    print(f"\nimages/s, median of {rounds} turns")
    print(f"{'source':28}{'images':>9}{'alone':>9}{'command':>9}{'share':>8}  verdict")
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind, (size, file_format, repeats) in KINDS.items():
            files = write_images(Path(folder) / file_format, size, file_format)
            shard = write_shard(Path(folder) / f"{file_format}.tar", files)
            sources = {f"{kind}, folder": files[0].parent, f"{kind}, tar": shard}
            alone, commands = [], {name: [] for name in sources}
            for _ in range(rounds):
                alone.append(rate_alone(files * repeats))
                for name, source in sources.items():
                    commands[name].append(rate_of_command([source] * repeats, len(files) * repeats))
            for name, rates in commands.items():
                reference, measured = statistics.median(alone), statistics.median(rates)
                target = Target(name, REQUIRED, measured / reference)
                missed |= target.verdict != "met"
                counts = f"{len(files) * repeats:9,}{reference:9,.0f}{measured:9,.0f}"
                print(f"{name:28}{counts}{measured / reference:8.0%}  {target.verdict}: {REQUIRED:.0%}", flush=True)
    return TARGET_MISSED if missed else 0


def write_images(folder: Path, size: tuple[int, int], file_format: str) -> list[Path]:
    """Write images of smooth noise, and return their paths."""
    folder.mkdir()
    content = encode(size, file_format, {})
    files = [folder / f"{number:05}.{file_format.lower()}" for number in range(FILES)]
    for file in files:
        file.write_bytes(content)
    return files


def write_shard(path: Path, files: Sequence[Path]) -> Path:
    """Write a tar file of images."""
    with tarfile.open(path, "w") as tar:
        for file in files:
            member = tarfile.TarInfo(file.name)
            content = file.read_bytes()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def rate_of_command(sources: Sequence[Path], images: int) -> float:
    """Return how many images per second `pdeinfer classify` writes into a JSON Lines file."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pdeinfer",
            "classify",
            *map(str, sources),
            "--model",
            MODEL,
            "--device",
            "cpu",
        ]
        started = time.perf_counter()
        subprocess.run([*command, "--out", f"{folder}/result.jsonl"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        return images / (time.perf_counter() - started)


def rate_alone(files: Sequence[Path]) -> float:
    """Return how many images per second the CPUs classify, with nothing to list or to write."""
    context = multiprocessing.get_context("spawn")
    cpus = available_cpus()
    barrier = context.Barrier(cpus + 1)
    processes = [
        context.Process(target=classify, args=([*map(str, files[index::cpus])], barrier)) for index in range(cpus)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    return len(files) / (time.perf_counter() - started)


def classify(files: list[str], barrier: Barrier) -> None:
    """Classify images once all processes are ready."""
    with Predictor(MODEL, device="cpu", threads=1) as predictor:
        list(predictor.predict_iter(files[:64]))
        barrier.wait()
        for _ in predictor.predict_iter(files):
            pass


if __name__ == "__main__":
    sys.exit(main())
