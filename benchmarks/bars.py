"""What the measured times must reach: each bar as a ratio of two cases, and whether it is met."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.networks import RESNET, pde_preset
from benchmarks.routes import FUNCTION, FUSED, OPENVINO, OPENVINO_PLAIN, PLAIN
from benchmarks.timing import Timing
from benchmarks.workers import Case

BAR_NOT_MET = 3  # an exit code: all was measured; 1 is also that of a crash
BATCH_SIZES = (1, 64)


@dataclass(frozen=True, slots=True)
class Bar:
    """A ratio that must be reached.

    Attributes:
        name: what is compared with what.
        required: the least ratio.
        measured: the ratio found, or None where a case of it was not measured.
    """

    name: str
    required: float
    measured: float | None

    @property
    def verdict(self) -> str:
        """Say "met", "NOT MET" or "not measured"."""
        if self.measured is None:
            return "not measured"
        return "met" if self.measured >= self.required else "NOT MET"


def bars(timings: Mapping[Case, Timing]) -> list[Bar]:
    """Return every bar with the ratio of the medians measured."""
    return [Bar(name, required, _ratio(timings, slow, fast)) for name, required, slow, fast in _comparisons(timings)]


def cases_of_bars(timings: Mapping[Case, Timing]) -> list[Case]:
    """Return the cases that the bars compare, of those that were measured; of OpenVINO the faster."""
    compared = dict.fromkeys(case for *_, slow, fast in _comparisons(timings) for case in (slow, fast))
    return [case for case in compared if case in timings]


def _comparisons(timings: Mapping[Case, Timing]) -> Iterator[tuple[str, float, Case, Case]]:
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
