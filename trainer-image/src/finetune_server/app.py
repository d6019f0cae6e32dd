"""The application: both families of routes, and one place where errors become answers."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from finetune_server.errors import ApiError, describe
from finetune_server.gate import Gate
from finetune_server.keys import ApiKeys
from finetune_server.openai_routes import openai_router
from finetune_server.service import MODEL_NOT_FOUND, Service
from finetune_server.tgi_routes import tgi_router


def build_app(service: Service, keys: ApiKeys | None = None) -> Gate:
    """The ASGI application behind its gate; with keys, only for those who have one."""
    app = FastAPI(title=f"{service.plan.name} (finetune-operator, Transformers engine)", docs_url="/docs")
    gate = Gate(app, keys, service.plan.request_timeout_seconds)
    app.include_router(openai_router(service))
    app.include_router(tgi_router(service, gate))

    @app.exception_handler(ApiError)
    async def refuse(request: Request, error: ApiError) -> JSONResponse:
        if error.code == MODEL_NOT_FOUND and gate.is_parting:
            error = ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{error}; this pod is being replaced: ask again", retry_after=1
            )
        body = error.as_openai() if request.url.path.startswith("/v1/") else error.as_tgi()
        return JSONResponse(body, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def refuse_http(request: Request, error: HTTPException) -> JSONResponse:
        # FastAPI's words for bytes that are not text.
        is_unreadable = error.detail == "There was an error parsing the body"
        detail = "the body is not JSON in UTF-8" if is_unreadable else str(error.detail)
        answer = await refuse(request, ApiError(HTTPStatus(error.status_code), detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def apologise(request: Request, error: Exception) -> JSONResponse:
        # Starlette logs it after this answer.
        return await refuse(request, ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, f"a bug: {type(error).__name__}"))

    @app.exception_handler(RequestValidationError)
    async def refuse_body(request: Request, error: RequestValidationError) -> JSONResponse:
        # Each API's own habit: OpenAI answers 400, TGI 422.
        is_openai = request.url.path.startswith("/v1/")
        status = HTTPStatus.BAD_REQUEST if is_openai else HTTPStatus.UNPROCESSABLE_ENTITY
        message, param = describe(error.errors())
        return await refuse(request, ApiError(status, message, param=param))

    return gate
