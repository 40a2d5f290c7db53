"""Writes an evaluation as one HTML file that needs nothing else, with the pictures that one should look at."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import PIL.Image

from pdeinfer.checks.evaluation import Evaluation, Example, describe_unknown_labels
from pdeinfer.checks.metrics import Calibration
from pdeinfer.files import replace_file
from pdeinfer.inline_html import fill, source
from pdeinfer.text import counted
from pdeinfer.version import __version__

REPORT_FILE = "index.html"

_MATRIX_CLASSES = 40  # a larger matrix is not readable
_SHADES = 10
_LISTED_FILES = 10  # with the reasons why they were not classified
_PLOT = 300  # the side of the diagram; all its numbers are SVG units


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Write `index.html` to a folder, which is created, and return the file's path.

    The file's own policy forbids it every connection and script.

    Raises:
        ImageError: an image file that was classified can no longer be read.
        OSError: the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REPORT_FILE
    content = report_html(evaluation)
    replace_file(path, lambda partial: partial.write_text(content, encoding="utf-8"))
    return path


def report_html(evaluation: Evaluation) -> str:
    """Return the HTML file."""
    template, style = (
        (files("pdeinfer") / "checks" / "view" / name).read_text(encoding="utf-8")
        for name in ("evaluation.html", "evaluation.css")
    )
    low, high = evaluation.accuracy_interval
    where = "the test images of its training" if evaluation.folder is None else evaluation.folder
    parts = {
        "style_source": source(style),
        "style": style,
        "title": _text(f"{evaluation.title} on {where}"),
        "accuracy": f"{evaluation.accuracy:.1%}",
        "summary": _text(
            f"{evaluation.correct:,} of {evaluation.images:,} images are classified correctly; with 95 % confidence "
            f"the accuracy is between {low:.1%} and {high:.1%}. {evaluation.images_per_second:,.0f} images per second "
            f"on {evaluation.device}, {counted(evaluation.threads, 'thread')}, "
            "decoding excluded."
        ),
        "notes": _notes(evaluation),
        "classes": _classes(evaluation),
        "confusion": _confusion(evaluation),
        "ece": f"{evaluation.calibration.error:.3f}",
        "diagram": _reliability_diagram(evaluation.calibration),
        "mistakes": _gallery(evaluation, evaluation.mistakes),
        "confident": _gallery(evaluation, evaluation.confident),
        "version": __version__,
    }
    return fill(template, parts)


def _notes(evaluation: Evaluation) -> str:
    notes = []
    if evaluation.unknown_labels:
        notes.append(f"Left out, as the model has no such label: {describe_unknown_labels(evaluation)}.")
    if evaluation.left_out:
        count = sum(each.files for each in evaluation.left_out)
        names = [f"{each.path}: {each.reason}" for each in evaluation.left_out[:_LISTED_FILES]]
        if len(evaluation.left_out) > len(names):
            names.append("and others")
        notes.append(f"{counted(count, 'file')} not classified: {'; '.join(names)}.")
    missing = [each.label for each in evaluation.classes if not each.images]
    if missing:
        notes.append(f"No images of {', '.join(missing)}.")
    return "".join(f'<p class="note">{_text(note)}</p>' for note in notes)


def _classes(evaluation: Evaluation) -> str:
    rows = (
        (each.label, f"{each.images:,}", _percent(each.precision), _percent(each.recall)) for each in evaluation.classes
    )
    return _table(("class", "images", "precision", "recall"), rows)


def _confusion(evaluation: Evaluation) -> str:
    if len(evaluation.labels) > _MATRIX_CLASSES:
        rows = ((true, predicted, f"{count:,}") for count, true, predicted in evaluation.confusions[:_MATRIX_CLASSES])
        return _table(("class", "taken for", "images"), rows)
    header = "".join(f'<th scope="col">{_text(label)}</th>' for label in evaluation.labels)
    lines = []
    for true, row in enumerate(evaluation.confusion):
        total = max(sum(row), 1)
        cells = "".join(
            f'<td class="{"right" if true == predicted else "wrong"} s{round(_SHADES * count / total)}">'
            f"{count or ''}</td>"
            for predicted, count in enumerate(row)
        )
        lines.append(f'<tr><th scope="row">{_text(evaluation.labels[true])}</th>{cells}</tr>')
    return (
        f'<table class="matrix"><thead><tr><th scope="col">true \\ answer</th>{header}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _reliability_diagram(calibration: Calibration) -> str:
    most = max(each.images for each in calibration.bins)
    points = "".join(
        f'<circle cx="{_PLOT * each.confidence:.1f}" cy="{_PLOT * (1 - each.accuracy):.1f}" '
        f'r="{4 + 8 * (each.images / most) ** 0.5:.1f}"><title>{each.images:,} images: probability '
        f"{each.confidence:.1%}, right {each.accuracy:.1%}</title></circle>"
        for each in calibration.bins
    )
    ticks = "".join(
        f'<text x="{_PLOT * share:.0f}" y="{_PLOT + 20}">{share:.0%}</text>'
        f'<text x="-24" y="{_PLOT * (1 - share) + 4:.0f}">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<svg viewBox="-70 -20 {_PLOT + 100} {_PLOT + 70}" role="img" '
        'aria-label="Share of right answers against their probability">'
        f'<rect width="{_PLOT}" height="{_PLOT}"/><path d="M0 {_PLOT}L{_PLOT} 0"/>{points}{ticks}'
        f'<text x="{_PLOT / 2:.0f}" y="{_PLOT + 40}">probability of the answer</text>'
        f'<text transform="translate(-54 {_PLOT / 2:.0f}) rotate(-90)">right</text></svg>'
    )


def _gallery(evaluation: Evaluation, examples: Sequence[Example]) -> str:
    if not examples:
        return "<p>None.</p>"
    figures = "".join(
        f'<figure><img src="{_data_url(evaluation, each)}" alt="{_text(each.image)}" title="{_text(each.image)}">'
        f"<figcaption><b>{_text(each.predicted)}</b> {each.score:.1%}"
        + ("" if each.predicted == each.label else f"<br>is {_text(each.label)}")
        + f"<br><small>{_text(Path(each.image).name)}</small></figcaption></figure>"
        for each in examples
    )
    return f'<div class="gallery">{figures}</div>'


def _data_url(evaluation: Evaluation, example: Example) -> str:
    pixels = evaluation.source.picture(example.index)
    kind = "PNG" if max(pixels.shape) < 100 else "JPEG"  # small images of data sets stay exact
    file = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _text(text: str) -> str:
    return html.escape(text.encode(errors="replace").decode())
