"""Spans of requests for OpenTelemetry, of which nothing is loaded unless it is wanted.

`model` is what the rest of the gateway knows of it, `options` what settings and environment say;
`spans` and `export` need the extra ``otel``.
"""
