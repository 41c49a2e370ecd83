"""What the gateway costs, beside something that anyone can run.

``python -m benchmarks`` (or ``make bench``) makes every figure, ``python -m benchmarks.memory``
moves large bodies in every way. Each starts the real command and real services, in processes of
their own, and reads what the operating system says of those processes.

To add a figure, write a module with a ``measure(options: Options) -> Figure`` and list it in
``benchmarks.__main__``. `sides` is the frame of all of them, `stand` what they are set up with.
"""
