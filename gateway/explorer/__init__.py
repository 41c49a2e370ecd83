"""The explorer: a page at ``/docs`` that lists actions, tries them and shows live values."""

from __future__ import annotations

from gateway.explorer.pages import Explorer

__all__ = ["Explorer"]
