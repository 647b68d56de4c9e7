"""The files of the page, and the headers that keep it to itself."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from aiohttp import web

from redis_worker.vocabulary.version import __version__

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The Content-Security-Policy: nothing from elsewhere, no inline script or style, no markup from text, no frame."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_TYPES: Final = {
    "index.html": "text/html",
    "dashboard.css": "text/css",
    "uplot.css": "text/css",
    "dashboard.js": "text/javascript",
    "views.js": "text/javascript",
    "charts.js": "text/javascript",
    "dom.js": "text/javascript",
    "uplot.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "uplot.LICENSE.txt": "text/plain",
}


class Files:
    """The files, read once."""

    def __init__(self) -> None:
        folder = files(__package__) / "static"
        self._bodies = {name: (folder / name).read_bytes() for name in _TYPES}
        version = hashlib.sha256(b"".join(self._bodies.values())).hexdigest()[:16]
        self._tag = f'"{__version__}-{version}"'

    def routes(self) -> list[web.RouteDef]:
        """Return the routes: the page at `/`, all others by their names."""
        return [web.get("/", self._page), web.get("/static/{name}", self._file)]

    async def _page(self, request: web.Request) -> web.Response:
        return self._answer(request, "index.html")

    async def _file(self, request: web.Request) -> web.Response:
        return self._answer(request, request.match_info["name"])

    def _answer(self, request: web.Request, name: str) -> web.Response:
        if name not in self._bodies:
            raise web.HTTPNotFound
        headers = HEADERS | {"ETag": self._tag, "Content-Type": f"{_TYPES[name]}; charset=utf-8"}
        if request.headers.get("If-None-Match") == self._tag:
            return web.Response(status=304, headers=HEADERS | {"ETag": self._tag})
        return web.Response(body=self._bodies[name], headers=headers)
