from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GatewaySubscribeRequest(_message.Message):
    __slots__ = ("gateway_client_id", "cursor")
    GATEWAY_CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    gateway_client_id: str
    cursor: str
    def __init__(self, gateway_client_id: _Optional[str] = ..., cursor: _Optional[str] = ...) -> None: ...

class PushEvent(_message.Message):
    __slots__ = ("client_event", "session_invalidation", "cursor")
    CLIENT_EVENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_INVALIDATION_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    client_event: ClientEvent
    session_invalidation: SessionInvalidation
    cursor: str
    def __init__(self, client_event: _Optional[_Union[ClientEvent, _Mapping]] = ..., session_invalidation: _Optional[_Union[SessionInvalidation, _Mapping]] = ..., cursor: _Optional[str] = ...) -> None: ...

class PushEventBatch(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[PushEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[PushEvent, _Mapping]]] = ...) -> None: ...

class ClientEvent(_message.Message):
    __slots__ = ("user_id", "device_session_id", "kind", "payload", "event_id", "request_id", "trace_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    device_session_id: str
    kind: str
    payload: bytes
    event_id: str
    request_id: str
    trace_id: str
    def __init__(self, user_id: _Optional[str] = ..., device_session_id: _Optional[str] = ..., kind: _Optional[str] = ..., payload: _Optional[bytes] = ..., event_id: _Optional[str] = ..., request_id: _Optional[str] = ..., trace_id: _Optional[str] = ...) -> None: ...

class SessionInvalidation(_message.Message):
    __slots__ = ("device_session_id", "user_id", "reason")
    DEVICE_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    device_session_id: str
    user_id: str
    reason: str
    def __init__(self, device_session_id: _Optional[str] = ..., user_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
