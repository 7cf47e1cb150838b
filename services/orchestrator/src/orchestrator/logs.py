"""Logging: one JSON object a line on standard error, without secrets or file contents."""

import asyncio
import logging
import sys

import structlog


def configure_logging(level: str) -> None:
    """Log our own events from `level` up, and warnings of libraries, in one form."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("asyncio").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of asyncio's tells anything.

    anyio waits at a socket with `add_reader(socket, future.set_result, None)`. If the wait is
    cancelled in the moment in which the socket becomes ready, that callback finds a future that is
    over already, which harms nobody.
    """
    error = record.exc_info[1] if record.exc_info else None
    is_late = record.getMessage().startswith("Exception in callback Future.set_result(")
    return not (is_late and isinstance(error, asyncio.InvalidStateError))
