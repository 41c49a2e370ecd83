"""Live events: what services publish, as Server-Sent Events.

`topic` is what a browser asks for; `values` what is known of it and in which order it changed;
`upstream` one subscription to the mesh, `hub` all of them; `stream` one browser; `endpoint` what
answers below ``/api/events/``; `exposition` the metrics.
"""
