"""The chat page: static files of the folder `page`, read once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jobs.serving.gateway.http import Call
from jobs.serving.protocol import ApiError

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)


@cache
def _files() -> dict[str, tuple[str, bytes]]:
    """Content type and bytes by path. What is not in this table cannot be asked for, whatever the path looks like."""
    files = {
        f"/{file.relative_to(_FOLDER).as_posix()}": (_TYPES[file.suffix], file.read_bytes())
        for file in _FOLDER.rglob("*")
        if file.suffix in _TYPES
    }
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files


async def page(call: Call) -> None:
    """A file of the page. Raises ApiError 404."""
    found = _files().get(call.path)
    if found is None:
        raise ApiError(404, "There is nothing at this address.", code="not_found")
    if call.method not in ("GET", "HEAD"):
        raise ApiError(405, f"{call.path} takes GET.", code="method_not_allowed")
    content_type, body = found
    await call.respond(200, body, content_type, _HEADERS)
