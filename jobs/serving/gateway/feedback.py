"""What users think of an answer: `POST /v1/feedback`, kept for the A/B test."""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.errors import HaetsalError
from jobs.serving.gateway.receipts import Answered
from jobs.serving.protocol import ApiError


class Feedback(BaseModel):
    """`POST /v1/feedback`. One of the three is needed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    request_id: Annotated[str, Field(min_length=1, max_length=512)]
    """The answer's `x-request-id`."""
    thumb: Literal["up", "down"] | None = None
    score: Annotated[int, Field(ge=1, le=5)] | None = None
    comment: Annotated[str, Field(min_length=1, max_length=2000)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Feedback:
        if self.thumb is None and self.score is None and self.comment is None:
            raise ValueError("thumb, score or comment is needed")
        return self


class FeedbackLog:
    """Feedback as small files that are only ever created: `<date>/<time>-<request id>-<random>.json`.

    Each is written whole or not at all, on a disk and on S3 alike, and no two replicas write to the same.
    """

    def __init__(self, address: str) -> None:
        # Here, because s3fs takes half a second to import and a gateway without feedback can do without it.
        from jobs.storage import Storage

        self._storage = Storage(address)

    async def append(self, feedback: Feedback, answered: Answered, key_id: str) -> None:
        """Keep one. Raises ApiError 503 when the storage cannot."""
        now = datetime.now(UTC)
        record: dict[str, Any] = {
            "time": now.isoformat(timespec="milliseconds"),
            **vars(answered),
            "key": key_id,
            **feedback.model_dump(exclude={"request_id"}, exclude_none=True),
        }
        name = f"{now:%Y%m%d}/{now:%H%M%S%f}-{answered.request_id}-{secrets.token_hex(4)}.json"
        try:
            await asyncio.to_thread(self._storage.create, name, json.dumps(record, ensure_ascii=False).encode())
        except HaetsalError:
            message = "The feedback could not be kept; try again later."
            raise ApiError(503, message, kind="server_error", code="storage", retry_after_s=5) from None
