"""card.json: it survives writing and reading, and errors name an impossible value."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdeinfer.errors import ModelPackageError
from pdeinfer.package import zoo
from pdeinfer.package.card import CARD_FILE, ModelCard
from pdeinfer.package.card_json import MAX_CARD_BYTES
from pdeinfer.package.package import DIGEST_FILE, ONNX_FILE, ModelPackage
from pdeinfer.package.writing import new_package, write_card
from pdeinfer.spec.pde_spec import PdeSpec, PeronaMalik
from pdeinfer.spec.presets import PRESETS
from tests.conftest import GREY_PRESET, write_tiny_package
from tests.package.packages import CARD, change_card, fill, write_text


class TestCard:
    """card.json."""

    @pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
    def test_a_card_round_trips_through_json(self, preset: Any) -> None:
        card = replace(CARD, preset=preset)
        assert ModelCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card

    def test_the_presets_keys_are_at_the_top_level(self) -> None:
        values = CARD.to_dict()
        assert values["format"] == 1
        assert (values["name"], values["input"]["height"], len(values["labels"])) == ("mnist-pde", 28, 10)
        assert {
            "network",
            "parameters",
            "macs",
            "opset",
            "training",
            "metrics",
            "parity",
            "files",
            "created",
        } < values.keys()

    def test_a_written_card_lists_the_files_of_the_folder(self, tmp_path: Path) -> None:
        with new_package(tmp_path / "p") as folder:
            written = fill(folder)
        assert set(written.files) == {ONNX_FILE, "saved_model/variables/variables.data-00000-of-00001"}
        assert ModelPackage.read(tmp_path / "p").card == written
        assert "π" in (tmp_path / "p" / CARD_FILE).read_text(encoding="utf-8")

    def test_an_older_card_has_no_variants(self, package: Path) -> None:
        change_card(package, lambda card: card.pop("variants"))
        assert ModelPackage.read(package).card.variants == {}

    @pytest.mark.parametrize("key", sorted(CARD.to_dict().keys() - {"variants"}))
    def test_a_missing_key_is_named(self, package: Path, key: str) -> None:
        change_card(package, lambda card: card.pop(key))
        problem = "this version reads format 1, not None" if key == "format" else f"the key '{key}' is missing"
        with pytest.raises(ModelPackageError, match=f"{package / CARD_FILE}: {problem}"):
            ModelPackage.read(package)

    @pytest.mark.parametrize(
        ("key", "value", "problem"),
        [
            ("format", 2, "this version reads format 1, not 2"),
            ("format", "1", "this version reads format 1, not '1'"),
            ("name", "", "name must be"),
            ("name", "../x", "name must be"),
            ("labels", "0123456789", "labels must be a tuple"),
            ("labels", [1, 2], "labels must be at least two non-empty strings"),
            ("labels", None, "labels must be"),
            ("input", [], "not a preset"),
            ("input", None, "not a preset"),
            ("network", {"kind": "transformer"}, "network kind must be one of"),
            ("network", {"kind": ["residual"]}, "not a preset"),
            ("parameters", "524", "parameters must be an integer >= 0, not '524'"),
            ("parameters", -1, "parameters must be an integer >= 0, not -1"),
            ("opset", True, "opset must be an integer >= 0, not True"),
            ("training", [], r"training must be an object, not \[\]"),
            ("metrics", 0.9, "metrics must be an object"),
            ("metrics", {"test_accuracy": "97 %"}, "metrics: test_accuracy must be a number from 0 to 1, not '97 %'"),
            ("variants", {"int8": {"test_accuracy": []}}, "int8: test_accuracy must be a number"),
            ("parity", None, "parity must be an object"),
            ("variants", {"int8": [0.9]}, r"variants: int8 must be an object, not \[0.9\]"),
            ("created", 2024, "created must be a string"),
            ("pdeinfer_version", None, "pdeinfer_version must be a string"),
            ("files", [], "files must map names"),
            ("files", {ONNX_FILE: "abc"}, "files must map names"),
            ("files", {ONNX_FILE: {"sha256": "0" * 64}}, "files must map names"),
            ("files", {ONNX_FILE: {"sha256": "0" * 64, "bytes": -1}}, "bytes must be an integer >= 0, not -1"),
            ("files", {ONNX_FILE: {"sha256": "xyz", "bytes": 1}}, "sha256 must be 64 hexadecimal digits, not 'xyz'"),
            ("files", {}, "files must list model.onnx"),
        ],
    )
    def test_an_impossible_value_is_named(self, package: Path, key: str, value: object, problem: str) -> None:
        change_card(package, lambda card: card.update({key: value}))
        with pytest.raises(ModelPackageError, match=f"{package / CARD_FILE}: .*{problem}"):
            ModelPackage.read(package)

    @pytest.mark.parametrize(
        "name",
        [
            "../model.onnx",
            "a/../../b",
            "/etc/passwd",
            "C:\\x",
            "a\\b",
            "a//b",
            "a/",
            "./a",
            ".hidden",
            "",
            CARD_FILE,
            "a\nb",
        ],
    )
    def test_file_names_outside_the_folder_are_rejected(self, package: Path, name: str) -> None:
        change_card(package, lambda card: card["files"].update({name: card["files"][ONNX_FILE]}))
        with pytest.raises(ModelPackageError, match=re.escape(repr(name))):
            ModelPackage.read(package)

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}', b"null", b"[]", b'"card"', b"1"]
    )
    def test_anything_but_a_json_object_is_rejected(self, package: Path, content: bytes) -> None:
        write_text(package, content)
        with pytest.raises(ModelPackageError, match=str(package / CARD_FILE)):
            ModelPackage.read(package)

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            (r'"\ud800"', "surrogate"),
            (r'{"\udfff": 1}', "surrogate"),
            ("[" * 900 + "]" * 900, "nesting"),
            ('{"a": ' * 20 + "1" + "}" * 20, "nesting"),
            (f'"{"x" * 10_001}"', "10001"),
            (f'{{"{"x" * 10_001}": 1}}', "10001"),
            ("1" + "0" * 309, r"x: expected numbers up to 1\.8e\+308, got 1000"),
            ("-1e400", r"x: expected numbers up to 1\.8e\+308, got -inf"),
            ("9" * 5000, "JSON"),
            ("[-Infinity]", "Infinity"),
            ('{"a": 1, "a": 1}', "'a' is repeated"),
        ],
    )
    @pytest.mark.parametrize("key", ["training", "metrics", "parity", "variants"])
    def test_a_value_that_json_text_cannot_repeat_or_that_is_too_large_is_rejected(
        self, package: Path, key: str, value: str, problem: str
    ) -> None:
        change_card(package, lambda card: card.update({key: {"x": "here"}}))
        text = (package / CARD_FILE).read_text(encoding="utf-8")
        write_text(package, text.replace('"here"', value))
        with pytest.raises(ModelPackageError, match=f"{package / CARD_FILE}: .*{problem}"):
            ModelPackage.read(package)

    @pytest.mark.parametrize("diffusivity", [10**30, 1e300, PeronaMalik(1e20)])
    def test_every_number_that_a_preset_may_have_is_accepted(
        self, diffusivity: PeronaMalik | float, package: Path
    ) -> None:
        network = replace(GREY_PRESET.network, pde=PdeSpec(diffusivity=diffusivity))
        card = replace(ModelPackage.read(package).card, preset=replace(GREY_PRESET, network=network))
        assert write_card(package, card) == ModelPackage.read(package).card

    def test_a_repeated_key_of_the_card_itself_is_rejected(self, package: Path) -> None:
        text = (package / CARD_FILE).read_text(encoding="utf-8")
        write_text(package, text.replace('"format": 1', '"format": 1, "format": 1'))
        with pytest.raises(ModelPackageError, match="'format' is repeated"):
            ModelPackage.read(package)

    def test_a_card_larger_than_the_limit_is_rejected(self, package: Path) -> None:
        write_text(package, b" " * (MAX_CARD_BYTES + 1))
        with pytest.raises(ModelPackageError, match=str(MAX_CARD_BYTES)):
            ModelPackage.read(package)

    def test_a_folder_without_a_card_is_rejected(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(ModelPackageError, match=f"{folder} .*{CARD_FILE}"):
                ModelPackage.read(folder)


class TestDigest:
    """card.json.sha256."""

    def test_every_flipped_bit_of_the_card_and_its_digest_is_rejected(self, package: Path) -> None:
        for name in (CARD_FILE, DIGEST_FILE):
            content = (package / name).read_bytes()
            for place in range(len(content)):
                flipped = bytearray(content)
                flipped[place] ^= 1 << place % 8
                (package / name).write_bytes(flipped)
                with pytest.raises(ModelPackageError, match=CARD_FILE):
                    ModelPackage.read(package)
            (package / name).write_bytes(content)
        ModelPackage.read(package)

    def test_it_is_the_checksum_of_the_card(self, package: Path) -> None:
        expected = hashlib.sha256((package / CARD_FILE).read_bytes()).hexdigest()
        assert ModelPackage.read(package).digest == expected
        assert (package / DIGEST_FILE).read_text() == f"{expected}  {CARD_FILE}\n"

    def test_packages_that_differ_in_a_label_or_a_file_differ_in_it(self, package: Path, tmp_path: Path) -> None:
        digests = {ModelPackage.read(package).digest}
        for number, preset in enumerate((GREY_PRESET, replace(GREY_PRESET, labels=tuple("abcdefghij")))):
            folder = write_tiny_package(tmp_path / str(number), preset)
            digests.add(ModelPackage.read(folder).digest)
            (folder / "extra").write_bytes(b"x")
            write_card(folder, ModelPackage.read(folder).card)
            digests.add(ModelPackage.read(folder).digest)
        assert len(digests) >= 4

    def test_a_package_of_an_earlier_version_has_none_in_a_file(self, package: Path) -> None:
        digest = ModelPackage.read(package).digest
        (package / DIGEST_FILE).unlink()
        read = ModelPackage.read(package)
        assert read.digest == digest
        read.verify_checksums()

    @pytest.mark.parametrize("name", zoo.names())
    def test_bundled_models_have_it(self, name: str) -> None:
        assert (zoo.load(name).path / DIGEST_FILE).is_file()
