"""`inspect` gives fields, levels and stability of PDE layers, and refuses what it cannot inspect."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.utils
import PIL.Image
import pytest

from pdeinfer import LayerFields, ModelNotFoundError, ModelPackage, ModelPackageError, PdeSpec, Predictor, inspect
from pdeinfer.cli.main import main
from pdeinfer.errors import ImageError
from pdeinfer.inspection.fields import Field, layer_fields
from pdeinfer.inspection.inspector import Inspector
from pdeinfer.inspection.values import layer_values, spec_values
from pdeinfer.package import zoo
from pdeinfer.package.package import FIELDS_FILE
from pdeinfer.package.writing import write_card
from pdeinfer.runtime.session import Session
from pdeinfer.spec.presets import PRESETS
from tests.conftest import write_tiny_package

Captured = pytest.CaptureFixture[str]
IMAGE = np.random.default_rng(3).integers(0, 256, (8, 8, 1), dtype=np.uint8)
RANDOM = np.random.default_rng(0)


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "seven.png"
    PIL.Image.fromarray(IMAGE.squeeze()).save(path)
    return path


def field(*rows: list[float]) -> Field:
    """A field of one channel."""
    return np.array(rows, np.float32)[..., np.newaxis]


def layer(
    velocity: tuple[Field, Field] | None,
    diffusivity: tuple[Field, Field] | None,
    *,
    num_steps: int = 1,
    dt: float = 0.5,
) -> LayerFields:
    shape = next(pair[0].shape for pair in (velocity, diffusivity, (np.zeros((1, 1, 1)),)) if pair is not None)
    spec = PdeSpec(num_steps, dt, velocity and "depthwise", diffusivity and "depthwise")
    levels = RANDOM.standard_normal((num_steps + 1, *shape)).astype(np.float32)
    return LayerFields("layer1", spec, velocity, diffusivity, levels[0], levels)


def growth(ax: float, ay: float, bx: float, by: float) -> float:
    """The largest |g| of a step H[k + 1] = g H[k] over the Fourier modes, for constant fields and without source."""
    x, y = np.meshgrid(*[np.linspace(-np.pi, np.pi, 361)] * 2)
    # L g^2 - 2 c g - M = 0
    c = 2 * bx * np.cos(x) + 2 * by * np.cos(y) - 1j * (ax * np.sin(x) + ay * np.sin(y))
    spread = 2 * bx + 2 * by
    root = np.sqrt(c * c + (1 + spread) * (1 - spread))
    return max(np.abs(c + root).max(), np.abs(c - root).max()) / (1 + spread)


class TestNumbers:
    """Courant and diffusion numbers, and the stable range."""

    def test_they_are_the_fields_times_dt(self) -> None:
        u, v, dx, dy = (field([value, 0.0]) for value in (1.0, -2.0, 3.0, 4.0))
        inspected = layer((u, v), (dx, dy), dt=0.25)
        assert [number[0, 0, 0] for number in inspected.courant_numbers] == [0.25, -0.5]
        assert [number[0, 0, 0] for number in inspected.diffusion_numbers] == [0.75, 1.0]

    def test_absent_fields_give_zeros(self) -> None:
        inspected = layer(None, None)
        assert inspected.velocity_gradients is None
        assert not np.any(inspected.courant_numbers)
        assert not np.any(inspected.diffusion_numbers)
        assert inspected.stable.all()

    def test_gradients_are_periodic_central_differences(self) -> None:
        u_x, v_y = layer((field([1.0, 2.0, 4.0]), field([1.0, 2.0, 4.0])), None).velocity_gradients
        assert u_x.ravel().tolist() == [(2 - 4) / 2, (4 - 1) / 2, (1 - 2) / 2]
        assert v_y.ravel().tolist() == [0, 0, 0]

    @pytest.mark.parametrize("seed", range(40))
    def test_the_stable_range_is_where_no_fourier_mode_grows(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        ax, ay, bx, by = rng.uniform(-1, 1, 4) * rng.choice([0, 1, 1], 4) * [1, 1, 0.5, 0.5]
        bx, by = abs(bx), abs(by)
        u, v, dx, dy = (field([2 * number]) for number in (ax, ay, bx, by))
        stable = layer((u, v), (dx, dy), dt=0.5).stable
        assert stable.shape == (1, 1, 1)
        assert stable.item() == (growth(ax, ay, bx, by) <= 1 + 1e-6)

    @pytest.mark.parametrize("u", [1e-30, 1e30])
    def test_extreme_values_raise_no_warning(self, u: float) -> None:
        assert not layer((field([u]), field([0.0])), (field([0.0]), field([1e-38]))).stable.item()


class TestWords:
    """The summary and the warning."""

    def test_the_summary_gives_the_numbers(self) -> None:
        u, v = field([1.0, 0.0]), field([0.0, -2.0])
        inspected = layer((u, v), (field([1.0, 0.0]), field([1.0, 1.0])), num_steps=3)
        size, courant, diffusion, outside, largest = inspected.summary
        assert size == "1 channel of 1 x 2 points, K = 3 steps of dt = 0.5"
        assert courant == (
            "Courant numbers: |Ax| maximum 0.5, mean 0.25; |Ay| maximum 1, mean 0.5; |Ax| + |Ay| maximum 1, mean 0.75"
        )
        assert diffusion == (
            "diffusion numbers: Bx maximum 0.5, mean 0.25; By maximum 0.5, mean 0.5; Bx + By maximum 1, mean 0.75"
        )
        assert outside == "outside the stable range: 0.0% of the points"
        first, last = (np.abs(inspected.levels[k]).max() for k in (0, 3))
        assert largest == f"largest |H|: {first:.3g} at H[0], {last:.3g} at H[3]"

    def test_absent_and_constant_fields_are_named(self) -> None:
        without = replace(layer(None, None), source=None)
        assert {"no advection: u = v = 0", "no diffusion: Dx = Dy = 0", "no source: f = 0"} < set(without.summary)
        ones = field([1.0])
        constant = replace(layer(None, (ones, ones)), spec=PdeSpec(velocity=None, diffusivity=1.0))
        assert "diffusion numbers: Bx = By = 0.2, constant" in constant.summary

    @pytest.mark.parametrize(
        ("changes", "is_separate"),
        [({}, False), ({"source": "depthwise"}, True), ({"start": "residual"}, True)],
        ids=["input", "learned-source", "learned-start"],
    )
    def test_a_source_that_is_not_the_first_level_is_among_the_values(
        self, changes: dict[str, Any], is_separate: bool
    ) -> None:
        inspected = layer(None, None)
        inspected = replace(inspected, spec=replace(inspected.spec, **changes))
        found = layer_values(inspected, has_arrays=True)["fields"]["f"]
        assert (found is not None) == is_separate
        if is_separate:
            assert np.array_equal(np.frombuffer(base64.b64decode(found["data"]), "<f4"), inspected.source.ravel())

    def test_the_values_tell_no_source_from_the_input(self) -> None:
        has_source = [spec_values(PdeSpec(source=source))["source"] for source in ("input", "depthwise", None)]
        assert has_source == [True, True, False]

    def test_channels_whose_field_is_zero_are_counted(self) -> None:
        u, v = np.ones((1, 2, 3), np.float32), np.ones((1, 2, 3), np.float32)
        u[..., 1:] = 0
        v[0, 0] = 0  # not in every point
        inspected = layer((u, v), None)
        assert inspected.zero_channels == {"u": 2, "v": 0}
        assert "zero in every point of a channel: u 2 of 3" in inspected.summary

    def test_a_stable_layer_has_no_warning(self) -> None:
        assert layer((field([1.9]), field([0.0])), None).instability is None

    def test_a_small_share_is_not_rounded_to_none(self) -> None:
        u = field([2.0] + 1999 * [0.0])
        assert "outside the stable range: less than 0.1% of the points" in layer((u, u), None).summary

    def test_instability_depends_on_the_number_of_steps(self) -> None:
        velocity = (field([2.0, 0.0]), field([0.0, 0.0]))
        outside = "the scheme is outside its stable range at 50.0% of the points"
        assert layer(velocity, None).instability == (
            f"{outside}; with a single step (K = 1), disturbances grow at most once"
        )
        assert layer(velocity, None, num_steps=5).instability == (
            f"{outside}; there, disturbances can grow with each of the 5 steps"
        )


class TestInspect:
    """pdeinfer.inspect."""

    def test_the_default_model_gives_its_layer(self) -> None:
        (inspected,) = inspect(IMAGE)
        assert inspected.name == "layer1"
        assert inspected.levels.shape == (6, 8, 8, 8)
        assert inspected.levels.dtype == np.float32
        assert inspected.spec == zoo.load("digits-pde").card.preset.network.pde
        for values in (*inspected.velocity, *inspected.diffusivity, *inspected.velocity_gradients):
            assert values.shape == (8, 8, 8)
            assert np.ptp(values) > 0

    def test_a_file_and_its_pixels_give_the_same(self, image_file: Path) -> None:
        (from_file,), (from_pixels,) = inspect(image_file, "digits-pde"), inspect(IMAGE, zoo.load("digits-pde"))
        assert np.array_equal(from_file.levels, from_pixels.levels)

    def test_a_non_image_or_unknown_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"missing\.png"):
            inspect(tmp_path / "missing.png")
        with pytest.raises(ModelNotFoundError, match="nothing"):
            inspect(IMAGE, "nothing")

    def test_a_missing_output_is_named(self) -> None:
        outputs = {f"layer1/{name}": np.zeros((1, 2, 2, 1), np.float32) for name in ("start", "u", "v")}
        with pytest.raises(ModelPackageError, match=r"fields\.onnx lacks the output 'layer1/Dx'"):
            layer_fields(outputs, "layer1", PdeSpec())

    def test_fields_of_another_network_are_refused(self, rgb_package_folder: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(rgb_package_folder, tmp_path / "package"))
        shutil.copy(zoo.load("digits-pde").path / FIELDS_FILE, folder)
        write_card(folder, ModelPackage.read(folder).card)
        with pytest.raises(ModelPackageError, match=r"fields\.onnx does not match its card: "):
            inspect(IMAGE, folder)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            (
                {"layer1/u": np.zeros((1, 1, 1, 1), np.float32)},
                r"layer1/u is float32 \(1, 1, 1, 1\); .* float32 \(",
            ),
            ({"layer1/Dx": np.zeros((1, 8, 8, 8))}, r"layer1/Dx is float64"),
            ({"layer1/v": np.zeros((8, 8, 8), np.float32)}, r"layer1/v is float32 \(8, 8, 8\)"),
            ({"layer2/u": np.zeros((1, 8, 8, 8), np.float32)}, "lacks the output 'layer2/start'"),
        ],
    )
    def test_fields_of_other_shapes_are_refused(
        self, changed: dict[str, np.ndarray], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_all = Session.run_all
        monkeypatch.setattr(Session, "run_all", lambda session, feeds: {**run_all(session, feeds), **changed})
        with pytest.raises(ModelPackageError, match=message):
            inspect(IMAGE)

    def test_damaged_fields_are_refused(self, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "package"))
        (folder / FIELDS_FILE).write_bytes(b"")
        with pytest.raises(ModelPackageError, match=r"fields\.onnx is damaged"):
            inspect(IMAGE, folder)


class TestReplay:
    """An inspection with other values of the PDE layers."""

    def make_earlier(self, folder: Path) -> ModelPackage:
        """A package of an earlier version: its fields.onnx takes the image alone."""
        shutil.copytree(zoo.load("digits-pde").path, folder)
        model = onnx.load(folder / FIELDS_FILE)
        outputs = [value.name for value in model.graph.output if value.name != "probabilities"]
        onnx.save(onnx.utils.Extractor(model).extract_model(["image"], outputs), folder / FIELDS_FILE)
        write_card(folder, ModelPackage.read(folder).card)
        return ModelPackage.read(folder)

    def test_a_package_of_an_earlier_version_is_inspected_but_not_changed(self, tmp_path: Path) -> None:
        inspector, package = Inspector(zoo.load("digits-pde")), self.make_earlier(tmp_path / "package")
        earlier = Inspector(package)
        assert (inspector.can_replay, earlier.can_replay) == (True, False)
        inspection = earlier.inspect(IMAGE)
        assert inspection.probabilities is None
        assert np.array_equal(inspection.layers[0].levels, inspector.inspect(IMAGE).layers[0].levels)
        with pytest.raises(ModelPackageError, match="export the model again"):
            earlier.inspect(IMAGE, inspector.spec)

    def test_the_answer_is_that_of_the_predictor(self) -> None:
        for name in ("digits-pde", "cifar10-global"):
            package = zoo.load(name)
            spec = package.card.preset.input
            pixels = RANDOM.integers(0, 256, (spec.height, spec.width, spec.channels), dtype=np.uint8)
            with Predictor(package, device="cpu") as predictor:
                (expected,) = predictor.predict_proba(pixels[np.newaxis])
            found = Inspector(package).inspect(pixels).probabilities
            assert found is not None
            assert np.abs(found - expected).max() < 1e-5

    def test_a_longer_time_step_changes_the_fields_of_later_layers_and_the_answer(self) -> None:
        inspector = Inspector(zoo.load("cifar10-global"))
        pixels = RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        before, after = inspector.inspect(pixels), inspector.inspect(pixels, replace(inspector.spec, dt=0.4))
        assert np.array_equal(before.layers[0].velocity, after.layers[0].velocity)
        assert not np.array_equal(before.layers[1].velocity, after.layers[1].velocity)
        assert np.abs(before.probabilities - after.probabilities).max() > 1e-3


class TestCommand:
    """pdeinfer inspect."""

    def test_it_prints_the_summary_and_writes_a_picture_for_each_layer(
        self, image_file: Path, tmp_path: Path, capsys: Captured
    ) -> None:
        assert main(["inspect", str(image_file), "-o", str(tmp_path / "new" / "pictures")]) == 0
        output = capsys.readouterr()
        picture = tmp_path / "new" / "pictures" / "seven-digits-pde-layer1.png"
        (inspected,) = inspect(image_file)
        first, *rest = inspected.summary
        assert output.out.splitlines() == [
            f"digits-pde, layer1: {first}",
            *(f"  {line}" for line in rest),
            f"  {picture}",
        ]
        assert output.err == f"pdeinfer: warning: layer1: {inspected.instability}\n"
        with PIL.Image.open(picture) as opened:
            assert opened.format == "PNG"

    def test_pictures_go_to_the_current_folder(
        self, image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["inspect", str(image_file)]) == 0
        assert (tmp_path / "seven-digits-pde-layer1.png").is_file()

    def test_html_is_one_file_in_place_of_the_pictures(
        self, image_file: Path, tmp_path: Path, capsys: Captured
    ) -> None:
        file = tmp_path / "new" / "seven.html"
        assert main(["inspect", str(image_file), "--html", str(file)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(file)
        assert list(file.parent.iterdir()) == [file]
        text = file.read_text(encoding="utf-8")
        assert "<title>digits-pde on seven.png</title>" in text
        assert re.findall(r"\bsrc=|<link|@import|^import |^export ", text, re.MULTILINE) == []
        content = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])
        levels = content["layers"][0]["levels"]
        found = np.frombuffer(base64.b64decode(levels["data"]), "<f4").reshape(levels["shape"])
        assert np.array_equal(found, inspect(image_file)[0].levels)

    def test_html_in_place_of_the_image_is_refused(self, image_file: Path, tmp_path: Path, capsys: Captured) -> None:
        image = Path(shutil.copy(image_file, tmp_path / "a.png"))
        (tmp_path / "link.html").symlink_to(image)
        for name in ("a.png", "link.html"):
            assert main(["inspect", str(image), "--html", str(tmp_path / name)]) == 2
            assert name in capsys.readouterr().err
        assert image.read_bytes() == image_file.read_bytes()

    def test_html_quotes_the_name_of_the_image(self, tmp_path: Path) -> None:
        name = "<img onerror=alert(1)>&{data}.png"
        PIL.Image.fromarray(IMAGE.squeeze()).save(tmp_path / name)
        assert main(["inspect", str(tmp_path / name), "--html", str(tmp_path / "a.html")]) == 0
        text = (tmp_path / "a.html").read_text(encoding="utf-8")
        assert "<img" not in text
        assert "<title>digits-pde on &lt;img onerror=alert(1)&gt;&amp;{data}.png</title>" in text

    def test_a_name_that_is_not_utf_8_is_escaped_in_html(self, image_file: Path, tmp_path: Path) -> None:
        image = Path(shutil.copy(image_file, os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")))
        assert main(["inspect", str(image), "--html", str(tmp_path / "a.html")]) == 0
        assert r"caf\udce9.png" in (tmp_path / "a.html").read_text(encoding="utf-8")

    def test_control_characters_in_a_file_name_do_not_reach_the_terminal(
        self, image_file: Path, tmp_path: Path, capsys: Captured
    ) -> None:
        image = Path(shutil.copy(image_file, tmp_path / "no\x1b[31m.png"))
        for options in (["-o", str(tmp_path)], ["--html", str(tmp_path / "no\x1b[31m.html")]):
            assert main(["inspect", str(image), *options]) == 0
            last = capsys.readouterr().out.splitlines()[-1]
            assert rf"{tmp_path}/no\x1b[31m" in last

    def test_an_unwritable_html_file_is_exit_code_2(self, image_file: Path, tmp_path: Path, capsys: Captured) -> None:
        assert main(["inspect", str(image_file), "--html", str(tmp_path)]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("pdeinfer: error: ")
        assert str(tmp_path) in line

    def test_instability_of_a_single_step_is_a_note(
        self, image_file: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unstable = layer((field([9.0]), field([9.0])), None)
        monkeypatch.setattr("pdeinfer.cli.inspect.inspect", lambda *_: (unstable,))
        assert main(["inspect", str(image_file), "-o", str(tmp_path)]) == 0
        assert capsys.readouterr().err.startswith("pdeinfer: note: layer1: the scheme is outside")

    def test_a_network_whose_values_have_no_bound_prints_no_warning_of_numpy(
        self, image_file: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unstable = layer((field([3e38]), field([np.inf])), None, num_steps=2, dt=10.0)
        unstable.levels[1:] = np.nan
        monkeypatch.setattr("pdeinfer.cli.inspect.inspect", lambda *_: (unstable,))
        assert main(["inspect", str(image_file), "-o", str(tmp_path)]) == 0
        assert capsys.readouterr().err.startswith("pdeinfer: warning: layer1: the scheme is outside")

    def write_resnet(self, folder: Path) -> Path:
        return write_tiny_package(folder, PRESETS["cifar10-resnet32"])

    def write_without_fields(self, folder: Path) -> Path:
        return write_tiny_package(folder, PRESETS["cifar10-global"])

    @pytest.mark.parametrize(
        ("write", "message"),
        [
            (write_resnet, "cifar10-resnet32 has no PDE layers to inspect"),
            (write_without_fields, "package has no fields.onnx: export the model again to add it"),
        ],
    )
    def test_a_model_without_fields_is_exit_code_2(
        self, write: Callable[..., Path], message: str, image_file: Path, tmp_path: Path, capsys: Captured
    ) -> None:
        folder = write(self, tmp_path / "package")
        assert main(["inspect", str(image_file), "--model", str(folder), "-o", str(tmp_path / "pictures")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("pdeinfer: error: ")
        assert line.endswith(message)
        assert not (tmp_path / "pictures").exists()

    def test_an_unwritable_folder_is_exit_code_2(self, image_file: Path, capsys: Captured) -> None:
        assert main(["inspect", str(image_file), "-o", str(image_file)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("pdeinfer: error: ")
        assert str(image_file) in line

    def test_a_non_image_is_exit_code_2(self, tmp_path: Path, capsys: Captured) -> None:
        (tmp_path / "a.png").write_bytes(b"text")
        assert main(["inspect", str(tmp_path / "a.png"), "-o", str(tmp_path)]) == 2
        assert capsys.readouterr().err.startswith(f"pdeinfer: error: {tmp_path / 'a.png'}: expected a BMP")

    def test_it_imports_only_numpy_pillow_and_onnx_runtime(self, image_file: Path, tmp_path: Path) -> None:
        program = (
            "import sys; from pdeinfer.cli.main import main; code = main(['inspect', *sys.argv[1:]]);"
            "heavy = {'tensorflow', 'keras', 'tf2onnx', 'onnx', 'matplotlib', 'scipy', 'sklearn'} & sys.modules.keys();"
            "sys.exit(str(heavy) if heavy else code)"
        )
        arguments = [sys.executable, "-c", program, str(image_file), "-o", str(tmp_path)]
        assert subprocess.run(arguments, capture_output=True, check=False).returncode == 0


def test_importing_pdeinfer_does_not_import_the_drawing() -> None:
    drawing = "{'pdeinfer.inspection.drawing', 'PIL.ImageDraw', 'PIL.ImageFont'}"
    program = f"import sys, pdeinfer; sys.exit(bool({drawing} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
