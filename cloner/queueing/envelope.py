"""Checks of messages as they are fetched, before kombu and Celery see them.

Celery trusts its messages: one header of a wrong type ends the whole worker, and kombu decompresses a body whatever its
size. `read_message` accepts what Celery 5.7 writes for this product's tasks, and nothing else.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Collection
from typing import Annotated, Any, Literal

from kombu.serialization import loads
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloner.errors import ClonerError
from cloner.validation import first_error

Scalar = str | int | float | bool | None
Id = Annotated[str, Field(min_length=1, max_length=255)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
EmptyList = Annotated[list[Any], Field(max_length=0)]
EmptyDict = Annotated[dict[str, Any], Field(max_length=0)]


class Malformed(ClonerError):
    """The message is not one that this product sends."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    __pydantic_extra__: dict[str, Scalar]
    """What another release of Celery 5.7 may add: plain values alone."""


class _Headers(_Part):
    id: Id
    task: str
    shadow: None = None
    eta: None = None
    """Celery would keep the message until then, and fetch another one."""
    expires: None = None
    group: Id | None = None
    group_index: int | None = None
    retries: Annotated[int, Field(ge=0)] = 0
    timelimit: tuple[Seconds | None, Seconds | None] = (None, None)
    root_id: Id | None = None
    parent_id: Id | None = None
    argsrepr: str = ""
    kwargsrepr: str = ""
    origin: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: Annotated[int, Field(ge=0)] = 0
    stamped_headers: EmptyList | None = None
    stamps: EmptyDict | None = None
    compression: None = None
    callbacks: None = None
    """A part of the body, as the next three: Celery reads it here where the body has none."""
    errbacks: None = None
    chain: None = None
    chord: None = None
    deaths: dict[str, Scalar] | None = None
    """Of the processes that had it in flight: `launcher.requeue` counts them."""


class _DeliveryInfo(_Part):
    exchange: str
    routing_key: str


class _Properties(_Part):
    delivery_tag: Id
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"]
    priority: Literal[0] | None = None
    """kombu would requeue another one into a queue that is not read."""


class _Envelope(_Part):
    body: str
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: _Headers
    properties: _Properties


class _Embed(_Part):
    callbacks: list[dict[str, Any]] | None = None
    errbacks: list[dict[str, Any]] | None = None
    chain: list[dict[str, Any]] | None = None
    chord: dict[str, Any] | None = None


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    args: list[Any]
    kwargs: dict[str, Any]
    embed: _Embed


def read_message(text: bytes, tasks: Collection[str]) -> dict[str, Any]:
    """A message as kombu stores it, for a process that runs these tasks. Raises `Malformed`."""
    try:
        envelope = _Envelope.model_validate_json(text)
    except ValidationError as error:
        raise Malformed(first_error(error)) from None
    if envelope.headers.task not in tasks:
        raise Malformed("headers.task: this process does not run that task")
    try:
        data = b64decode(envelope.body, validate=True)
        body = loads(data, envelope.content_type, envelope.content_encoding)  # type: ignore[no-untyped-call]
        _Body.model_validate(dict(zip(_Body.model_fields, body, strict=True)))
    except ValidationError as error:
        raise Malformed(f"body.{first_error(error)}") from None
    except Exception as error:  # noqa: BLE001 - whatever kombu's decoder raises
        raise Malformed(f"body: {type(error).__name__}") from None
    try:
        message: dict[str, Any] = json.loads(text)
    except ValueError as error:  # pydantic reads longer numbers than Python
        raise Malformed(str(error)) from None
    return message
