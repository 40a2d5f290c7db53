"""GET /: the page on which people see the PDE layers at work."""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from serving.http.header_lists import names

PATH = "/"
FILES = "/page/"  # what the page loads

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
# What the page loads and asks; `serving.middleware.security` forbids everything elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)


def add_page(app: FastAPI) -> None:
    """Serve the page and its files from memory. Browsers keep them, and ask each time whether they have changed."""
    pages = files("serving") / "page"
    content = {
        PATH: _content(pages / "index.html"),
        **{FILES + path: _content(file) for path, file in _find(files("pdeinfer") / "inspection" / "view")},
        **{FILES + path: _content(file) for path, file in _find(pages)},
    }

    async def answer(request: Request) -> Response:
        body, headers = content[request.scope["route"].path]
        known = names(request.headers, "if-none-match")
        tags = [tag.removeprefix("w/") for tag in known]  # a proxy that compresses adds W/
        if headers["ETag"] in tags or "*" in tags:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers)

    for path in content:
        app.get(path, include_in_schema=False)(answer)

    @app.get("", include_in_schema=False)  # of an application at /prefix; the page's addresses are relative to /prefix/
    async def add_slash(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"./{request.scope['path'].rpartition('/')[2]}/{query}")


def _find(folder: Traversable, prefix: str = "") -> list[tuple[str, Traversable]]:
    """Return every file below a folder that the page may load, by its relative path."""
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _find(entry, f"{prefix}{entry.name}/")
        elif _suffix(entry.name) in _TYPES.keys() - {".html"}:
            found.append((prefix + entry.name, entry))
    return found


def _content(file: Traversable) -> tuple[bytes, dict[str, str]]:
    body = file.read_bytes()
    kind = _TYPES[_suffix(file.name)]
    return body, {
        "Content-Type": kind if kind == "image/png" else f"{kind}; charset=utf-8",
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "no-cache",
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
    }


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2]
