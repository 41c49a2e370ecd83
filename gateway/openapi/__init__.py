"""The gateway describes itself: ``/openapi.json``, made from what is announced."""
