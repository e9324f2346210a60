"""The explorer's web app: its pages behind the guard of a network policy."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from conceptatlas.base.errors import ConceptAtlasError
from conceptatlas.views.explorer import live_pages, pages, table_pages
from conceptatlas.views.explorer.library import Library
from conceptatlas.views.explorer.missing import Missing
from conceptatlas.views.explorer.policy import BodyTooLarge, Guard, NetworkPolicy
from conceptatlas.views.html import STATIC, compile_templates, render

STATIC_FILES = {"style.css": "text/css", "explorer.css": "text/css", "explorer.js": "text/javascript"}


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form that was sent (the last of each name); what is not a form has none."""
    body = (await request.body()).decode("utf-8", errors="replace")
    return {name: values[-1] for name, values in parse_qs(body, max_num_fields=100).items()}


def _error_page(words: str, status: int) -> HTMLResponse:
    return HTMLResponse(render("explorer/error.html", words=words, status=status), status_code=status)


def _status(error: ConceptAtlasError) -> int:
    return 404 if isinstance(error, Missing) else 400 if error.exit_code == 2 else 500


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ConceptAtlasError)
    def refused(_: Request, error: ConceptAtlasError) -> Response:
        return _error_page(str(error), _status(error))

    @app.exception_handler(404)
    def not_found(_: Request, __: Exception) -> Response:
        return _error_page("There is no such page.", 404)

    @app.exception_handler(BodyTooLarge)
    def too_large(_: Request, __: BodyTooLarge) -> Response:
        return PlainTextResponse("The body is too large.", status_code=413)


def _add_static(app: FastAPI) -> None:
    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC_FILES:
            return _error_page("There is no such file.", 404)
        return Response(
            (STATIC / name).read_bytes(),
            media_type=STATIC_FILES[name],
            headers={"cache-control": "max-age=60"},
        )


def create_app(library: Library, policy: NetworkPolicy) -> Any:
    """Return the ASGI app that shows a library under a policy."""
    compile_templates()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_static(app)

    @app.get("/")
    def home() -> Response:
        if len(library.shelves) == 1 and library.together is None:
            return RedirectResponse(pages.base(next(iter(library.shelves))) + "/", status_code=307)
        return pages.library_page(library)

    @app.get("/s/{key}/")
    def study(key: str) -> Response:
        return pages.study_page(library.shelf(key))

    @app.get("/s/{key}/features")
    def features(key: str, request: Request) -> Response:
        return table_pages.features_page(library.shelf(key), request.query_params.multi_items())

    @app.get("/s/{key}/features.csv")
    def features_csv(key: str, request: Request) -> Response:
        return table_pages.features_csv(library.shelf(key), request.query_params.multi_items())

    @app.get("/s/{key}/feature/{slug}/{feature_id}")
    def feature(key: str, slug: str, feature_id: int, request: Request) -> Response:
        return pages.feature_page(library.shelf(key), slug, feature_id, request.query_params.multi_items())

    @app.post("/s/{key}/feature/{slug}/{feature_id}/note")
    async def note(key: str, slug: str, feature_id: int, request: Request) -> Response:
        return pages.put_note(library.shelf(key), slug, feature_id, await form_of(request))

    @app.get("/s/{key}/sentences")
    def sentences(key: str, request: Request) -> Response:
        return pages.sentences_page(library.shelf(key), dict(request.query_params))

    @app.get("/s/{key}/sentence/{item}")
    def sentence(key: str, item: int) -> Response:
        return pages.sentence_page(library.shelf(key), item)

    @app.get("/compare")
    def compare(a: str = "", b: str = "") -> Response:
        return pages.compare_page(library, a, b)

    _add_live(app, library)
    return Guard(app, policy)


def _add_live(app: FastAPI, library: Library) -> None:
    @app.get("/s/{key}/try")
    def try_form(key: str, request: Request) -> Response:
        return live_pages.try_page(library.shelf(key), request.query_params.multi_items())

    @app.post("/s/{key}/try")
    async def try_text(key: str, request: Request) -> Response:
        return live_pages.start_try(library.shelf(key), await form_of(request))

    @app.post("/s/{key}/steer")
    async def steer(key: str, request: Request) -> Response:
        return live_pages.start_steer(library.shelf(key), await form_of(request))

    @app.get("/s/{key}/job/{number}")
    def job(key: str, number: int) -> Response:
        return live_pages.job_page(library.shelf(key), number)
