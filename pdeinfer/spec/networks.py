"""Describes the input and the layers of a network as frozen values."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from pdeinfer.errors import PresetError
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.values import check_positive_int, check_tuple, is_number, use_plain_numbers

MAX_INPUT_PIXELS = 2**22  # 2048 x 2048

Fit = Literal["crop", "pad", "stretch"]
StridedPadding = Literal["same", "symmetric"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The images that a network takes.

    Attributes:
        height: in pixels.
        width: in pixels.
        channels: 1 (grey) or 3 (RGB).
        mean: one per channel, of pixels scaled to 0..1; the network subtracts it.
        std: one per channel, likewise; the network divides by it.
        fit: how an image with another aspect ratio is fitted: "crop" to the middle, "pad" with black, or "stretch".
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        check_positive_int("height", self.height)
        check_positive_int("width", self.width)
        check_positive_int("channels", self.channels)
        if self.height * self.width > MAX_INPUT_PIXELS:
            raise PresetError(
                f"height and width must give at most {MAX_INPUT_PIXELS} pixels, not {self.height} x {self.width}"
            )
        if self.channels not in (1, 3):
            raise PresetError(f"channels must be 1 or 3, not {self.channels!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            check_tuple(name, values)
            if len(values) != self.channels or not all(is_number(value) for value in values):
                raise PresetError(f"{name} must hold one finite number per channel ({self.channels}), not {values!r}")
        if min(self.std) <= 0:
            raise PresetError(f"std must be positive, not {self.std!r}")
        if self.fit not in get_args(Fit):
            raise PresetError(f"fit must be one of {get_args(Fit)}, not {self.fit!r}")


@dataclass(frozen=True, slots=True)
class SingleChannelNetwork:
    """The paper's illustrative MNIST networks: one channel throughout, about 520 parameters.

    The layers are `f = conv3x3(relu(BN(x)))`, a feature block, relu, average pooling and a dense layer. The feature
    block is "conv", `conv3x3(relu(BN(f)))`; "residual", `BN(f + conv3x3(relu(BN(f))))`; or a PDE layer on f.

    Attributes:
        feature: the feature block.
        pool_size: the side of the squares that the pooling averages, in pixels.
    """

    kind: ClassVar = "single-channel"

    feature: Literal["conv", "residual"] | PdeSpec
    pool_size: int = 4

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        if self.feature not in ("conv", "residual") and not isinstance(self.feature, PdeSpec):
            raise PresetError(f"feature must be 'conv', 'residual' or a PdeSpec, not {self.feature!r}")
        check_positive_int("pool_size", self.pool_size)


@dataclass(frozen=True, slots=True)
class DepthwiseConvolution:
    """A control for a PDE layer: `relu(BN(conv(h)))` with a depthwise convolution.

    Attributes:
        kernel_size: the side of the kernel, in pixels.
    """

    kind: ClassVar = "depthwise-convolution"

    kernel_size: int

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        check_positive_int("kernel_size", self.kernel_size)


@dataclass(frozen=True, slots=True)
class DepthwiseSum:
    """A control for a PDE layer: `relu(BN(sum))` over `num_terms` terms `relu(BN(conv(h)))`, depthwise convolutions.

    Four terms of kernel size 3 have as many weights as a PDE layer, and a sum in place of its scheme.

    Attributes:
        kernel_size: the side of each kernel, in pixels.
        num_terms: the number of terms, at least 2.
    """

    kind: ClassVar = "depthwise-sum"

    kernel_size: int
    num_terms: int

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        check_positive_int("kernel_size", self.kernel_size)
        check_positive_int("num_terms", self.num_terms)
        if self.num_terms < 2:
            raise PresetError(f"num_terms must be at least 2, not {self.num_terms!r}")


Control: TypeAlias = DepthwiseConvolution | DepthwiseSum


@dataclass(frozen=True, slots=True)
class ResidualNetwork:
    """A residual network of basic blocks; with `pde`, a PDE layer follows every stage but the last.

    Attributes:
        widths: channels of each stage; every stage but the first halves the resolution.
        blocks_per_stage: basic blocks in a stage.
        pde: the PDE layers, or None.
        strided_padding: the zero padding of 3x3 convolutions with stride 2. "symmetric", as in the paper, adds one
            pixel on each side: output i is centred on pixel 2i, where the block's 1x1 shortcut samples. "same" is
            Keras's rule, which centres it on pixel 2i + 1 if the side is even.
        control: layers in place of the PDE layers, for comparison; only without `pde`.
    """

    kind: ClassVar = "residual"

    widths: tuple[int, ...]
    blocks_per_stage: int = 1
    pde: PdeSpec | None = None
    strided_padding: StridedPadding = "same"
    control: Control | None = None

    def __post_init__(self) -> None:
        use_plain_numbers(self)
        check_tuple("widths", self.widths)
        if not self.widths:
            raise PresetError("widths must name the channels of at least one stage")
        for width in self.widths:
            check_positive_int("each of widths", width)
        check_positive_int("blocks_per_stage", self.blocks_per_stage)
        if self.pde is not None and not isinstance(self.pde, PdeSpec):
            raise PresetError(f"pde must be a PdeSpec or None, not {self.pde!r}")
        if self.strided_padding not in get_args(StridedPadding):
            raise PresetError(
                f"strided_padding must be one of {get_args(StridedPadding)}, not {self.strided_padding!r}"
            )
        if self.control is not None and not isinstance(self.control, Control):
            raise PresetError(f"control must be a DepthwiseConvolution, a DepthwiseSum or None, not {self.control!r}")
        if self.control is not None and self.pde is not None:
            raise PresetError("expected control or pde, got both: a control takes the place of PDE layers")


Network: TypeAlias = SingleChannelNetwork | ResidualNetwork
