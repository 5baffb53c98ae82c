"""Traces: each attempt as a span of the trace in which its event was emitted (OpenTelemetry).

What an application has set up is used as it is; the daemon sets itself up by the variables of
OpenTelemetry, OTEL_EXPORTER_OTLP_ENDPOINT and the like. Names and attributes are by its semantic
conventions for HTTP clients, where these know of something.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aetherflow_hooks.errors import ConfigInvalid
from aetherflow_hooks.model import Answered, Delivery, Ended, Endpoint, Event, Prevented
from aetherflow_hooks.rules.states import OUTCOME_WORDS, error_of
from aetherflow_hooks.rules.traceparent import Place, read_traceparent, write_traceparent
from aetherflow_hooks.watch.log import LogEvent, log

if TYPE_CHECKING:
    from opentelemetry.trace import Span

NAME = "aetherflow_hooks"
SERVICE = "aetherflow-hooks"  # where OTEL_SERVICE_NAME does not say otherwise
MISSING = "traces.enabled takes OpenTelemetry: pip install 'aetherflow-hooks[otel]'"


def current_traceparent() -> str | None:
    """Give the place in a trace where this is called; None: in none, or nobody traces.

    OpenTelemetry is asked only where the application has loaded it.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return write_traceparent(Place(context.trace_id, context.span_id, int(context.trace_flags)))


def set_up() -> None:
    """Send spans by OTLP, in a process of our own, as the environment says.

    Raises:
        ConfigInvalid: OpenTelemetry or its exporter is not installed.
    """
    try:
        from opentelemetry import trace  # noqa: PLC0415  an extra
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigInvalid("settings", [MISSING]) from error
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


class Tracer:
    """Makes a span of each attempt."""

    def __init__(self, version: str) -> None:
        """Use whatever provider there is.

        Raises:
            ConfigInvalid: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry import trace  # noqa: PLC0415  an extra
        except ImportError as error:
            raise ConfigInvalid("settings", [MISSING]) from error
        self._trace = trace
        self._tracer = trace.get_tracer(NAME, version)

    def attempt(
        self,
        endpoint: Endpoint,
        delivery: Delivery,
        event: Event,
        then: Callable[[Ended], None],
    ) -> tuple[str, Callable[[Ended], None]]:
        """Begin a span; give its place in the trace, and what ends it before it calls `then`.

        Where that fails, the attempt is made all the same.
        """
        try:
            return self._begin(endpoint, delivery, event, then)
        except Exception as error:  # noqa: BLE001  a sampler's, or of a URL by another hand
            log.error(LogEvent.STAGE_FAILED, stage="traces", exc_info=error)
            return event.traceparent, then

    def _begin(
        self,
        endpoint: Endpoint,
        delivery: Delivery,
        event: Event,
        then: Callable[[Ended], None],
    ) -> tuple[str, Callable[[Ended], None]]:
        trace = self._trace
        url = urlsplit(endpoint.url)
        span = self._tracer.start_span(
            "POST",
            context=self._context(event.traceparent),
            kind=trace.SpanKind.CLIENT,
            attributes={
                "http.request.method": "POST",
                "http.request.resend_count": delivery.attempt - 1,
                # and not the rest of the URL, which may hold a secret
                "server.address": url.hostname or "",
                "server.port": url.port or (443 if url.scheme == "https" else 80),
                "aetherflow.event.id": event.id,
                "aetherflow.event.type": event.type,
                "aetherflow.endpoint.id": endpoint.id,
                "aetherflow.delivery.id": delivery.id,
                "aetherflow.attempt": delivery.attempt,
            },
        )
        context = span.get_span_context()
        place = Place(context.trace_id, context.span_id, int(context.trace_flags))

        def ended(outcome: Ended) -> None:
            try:
                self._end(span, outcome)
            finally:
                then(outcome)

        return write_traceparent(place) if context.is_valid else event.traceparent, ended

    def _context(self, traceparent: str) -> Any:
        """Give the context of a parent elsewhere; a new trace where there is none."""
        trace = self._trace
        place = read_traceparent(traceparent)
        if place is None:
            return trace.set_span_in_context(trace.INVALID_SPAN)
        parent = trace.SpanContext(
            place.trace_id, place.span_id, is_remote=True, trace_flags=trace.TraceFlags(place.flags)
        )
        return trace.set_span_in_context(trace.NonRecordingSpan(parent))

    def _end(self, span: "Span", outcome: Ended) -> None:
        trace = self._trace
        if isinstance(outcome, Prevented):
            span.set_attribute("error.type", "prevented")
            span.set_status(trace.StatusCode.ERROR, outcome.reason)
        elif isinstance(outcome, Answered):
            span.set_attribute("http.response.status_code", outcome.status)
            if not 200 <= outcome.status < 300:  # noqa: PLR2004  nothing else is taken as delivered
                span.set_attribute("error.type", str(outcome.status))
                span.set_status(trace.StatusCode.ERROR)
        else:
            span.set_attribute("error.type", OUTCOME_WORDS[type(outcome)])
            span.set_status(trace.StatusCode.ERROR, error_of(outcome))
        span.end()
