"""What the server refuses, in OpenAI's form: one sentence, the field that is wrong, a status."""

from starlette.responses import JSONResponse


class Refused(Exception):
    """An answer that is an error. param: the field. code: a word for programs. retry_after: seconds."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    @property
    def body(self) -> dict:
        kind = "server_error" if self.status >= 500 else "rate_limit_error" if self.status == 429 else None
        told = {"message": str(self), "type": kind or "invalid_request_error", "param": self.param, "code": self.code}
        return {"error": told}

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


def wrong(param: str, sentence: str) -> Refused:
    """A 400 that names the field."""
    return Refused(400, f"{param} {sentence}", param)
