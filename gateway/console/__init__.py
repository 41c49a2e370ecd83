"""The admin page ``/``: what the gateway does now, and the JSON that it is drawn from."""
