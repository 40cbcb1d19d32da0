"""Records what clients say to a real Tenure, for test_replay.py to say again without them.

    .venv/bin/python tests/replay/record.py [client ...]

Runs as root (dockerd, containerd, podman). A recording replaces that of the same client and version.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.profiles import profile
from helpers.recording import recording_proxy
from replay.clients import CLIENTS, Stage
from replay.condense import condense
from replay.player import differences, play
from replay.tape import save


async def record(client: str) -> None:
    """One client against an empty registry; and played once, so that nothing is kept that cannot be replayed."""
    with tempfile.TemporaryDirectory(prefix="recording-") as scratch:
        folder = Path(scratch)
        with profile("sqlite-folder", {}, folder / "server.log") as registry:
            host, _, port = registry.address.partition(":")
            async with recording_proxy(host, int(port)) as proxy:

                def named(operation: str) -> None:
                    proxy.operation = operation

                named("prepare")
                stage = Stage(proxy.address, folder, named)
                version = await asyncio.to_thread(CLIENTS[client], stage)
                if proxy.troubles:
                    raise SystemExit(f"{client}: the proxy could not follow: {proxy.troubles}")
                recording = condense(client, version, proxy.heard, proxy.address)
        with profile("sqlite-folder", {}, folder / "replay.log") as registry:
            wrong = differences(recording, await play(f"http://{registry.address}", recording))
    if wrong:
        raise SystemExit(f"{client}: played again it goes otherwise\n" + "\n".join(wrong))
    path = save(recording)
    print(f"{path.name}: {len(recording.exchanges)} requests, {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or CLIENTS:
        asyncio.run(record(name))
