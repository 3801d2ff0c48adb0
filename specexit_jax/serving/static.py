"""The page at / and the files that it is made of: nothing in them asks another address for anything."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # files of two versions do not fit together
}


def page_routes() -> list[Route]:
    return [Route("/", _file, methods=["GET"]), Route("/page/{name}", _file, methods=["GET"])]


async def _file(request: Request) -> Response:
    path = FOLDER / request.path_params.get("name", "index.html")
    if path.suffix not in _TYPES or not path.is_file():
        raise HTTPException(404)
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers=_HEADERS)
