"""The targets for the measured times: each a ratio of two cases, and whether it is reached."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.networks import NO_PDE, RESNET, pde_preset
from benchmarks.routes import FUNCTION, FUSED, OPENVINO, OPENVINO_PLAIN, PLAIN
from benchmarks.timing import Timing
from benchmarks.workers import Case

TARGET_MISSED = 3  # the exit code if everything was measured but a target was missed; a crash is 1
BATCH_SIZES = (1, 64)


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio to be reached.

    Attributes:
        name: what is compared with what.
        required: the smallest ratio that reaches the target.
        measured: the ratio found; None if one of its cases was not measured.
    """

    name: str
    required: float
    measured: float | None

    @property
    def verdict(self) -> str:
        """Return "met", "not met" or "not measured"."""
        if self.measured is None:
            return "not measured"
        return "met" if self.measured >= self.required else "not met"


def targets(timings: Mapping[Case, Timing]) -> list[Target]:
    """Return every target with the measured ratio of the medians."""
    return [Target(name, required, _ratio(timings, slow, fast)) for name, required, slow, fast in _comparisons(timings)]


def cases_of_targets(timings: Mapping[Case, Timing]) -> list[Case]:
    """Return the measured cases that the targets compare; for OpenVINO, the faster file."""
    compared = dict.fromkeys(case for *_, slow, fast in _comparisons(timings) for case in (slow, fast))
    return [case for case in compared if case in timings]


def _comparisons(timings: Mapping[Case, Timing]) -> Iterator[tuple[str, float, Case, Case]]:
    """Yield name, required ratio, slower case and faster case of each target."""
    for num_steps, function, fused, resnet in ((1, 1.6, 2.7, 3.5), (5, 1.45, 4.5, 3.0)):
        network = pde_preset(num_steps).name
        for size in BATCH_SIZES:
            setting = f"K={num_steps}, batch {size}, one thread"
            ours = Case(network, FUSED, 1, size)
            plain = ours._replace(route=PLAIN)
            openvino = min(
                (ours._replace(route=OPENVINO), ours._replace(route=OPENVINO_PLAIN)),
                key=lambda case: timings[case].median if case in timings else float("inf"),
            )
            yield f"tf2onnx / function inlined, {setting}", function, plain, ours._replace(route=FUNCTION)
            yield f"tf2onnx / fused operator, {setting}", fused, plain, ours
            yield f"ResNet32 / fused operator, {setting}", resnet, ours._replace(network=RESNET.name), ours
            if num_steps == 1:  # the PDE layers add at most a fifth to the time of the network without them
                yield f"no PDE layers / fused operator, {setting}", 1 / 1.2, ours._replace(network=NO_PDE.name), ours
            yield f"the faster OpenVINO / fused operator, {setting}", 1.0, openvino, ours
        for size, required in ((1, 0.95), (64, 1.6)):
            one = Case(network, FUSED, 1, size)
            yield (
                f"one thread / two, fused operator, K={num_steps}, batch {size}",
                required,
                one,
                one._replace(threads=2),
            )


def _ratio(timings: Mapping[Case, Timing], slow: Case, fast: Case) -> float | None:
    return timings[slow].median / timings[fast].median if slow in timings and fast in timings else None
