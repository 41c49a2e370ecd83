"""What the gateway costs, beside something that anyone can run.

``python -m benchmarks`` (or ``make bench``) measures CPU per request, ``python -m
benchmarks.memory`` peak memory. Every figure starts the real command and real services, each in a
process of its own, and reads what the operating system says of those processes.

To add a figure, write a module with a ``measure(options: Options) -> Figure`` and list it in
``benchmarks.__main__``.
"""
