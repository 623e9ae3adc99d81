"""How a session's CPU threads are shared between inferences that run side by side."""

from __future__ import annotations

from vit_deploy.errors import UsageFailed


def share_of(threads: int, streams: int) -> int:
    """The threads of each of ``streams`` inferences.

    Raises:
        UsageFailed: where they cannot all have the same number.
    """
    if streams < 1 or threads % streams:
        raise UsageFailed(
            f"{threads} CPU thread{'s' if threads != 1 else ''} cannot be shared evenly by {streams} streams",
            expected="as many streams as divide the threads",
            next_command=f"--streams 1, or --threads {max(streams, 1)}",
        )
    return threads // streams
