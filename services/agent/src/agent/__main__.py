"""Run the worker: `python -m agent`."""

import os
import sys

from agent.first_process import hide_memory, leave_first_process
from agent.system_calls import give_up_system_calls


def main() -> None:
    """Serve until told to stop."""
    if sys.platform == "linux":
        hide_memory()
        give_up_system_calls()
        if os.getpid() == 1:
            leave_first_process()
    from agent.serve import serve  # noqa: PLC0415 - process 1 needs none of its memory

    serve()


if __name__ == "__main__":
    main()
