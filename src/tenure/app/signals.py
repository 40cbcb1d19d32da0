"""SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once."""

import asyncio
import os
import signal

_ASKING = (signal.SIGTERM, signal.SIGINT)


def asked_to_stop() -> asyncio.Event:
    """An event that is set by the first signal. The second one ends the process as if nobody handled it.

    That loses nothing which a crash would not lose; an orderly end only spares clients a broken transfer.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if asked.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked.set()

    for number in _ASKING:
        loop.add_signal_handler(number, on_signal, number)
    return asked
