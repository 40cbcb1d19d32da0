"""Everything that goes wrong, drawn from one seed: servers that die and come back, and a network that cheats."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from faults.machines import SMALL, Installation, Replica
from helpers.fault_proxy import Fault

#: shares of requests that meet a fault
_CLIENT_SHARE, _STORE_SHARE, _BURST_SHARE = 0.04, 0.05, 0.6


class Chaos:
    """`events` is the order of what happened; `counts` how often."""

    def __init__(self, system: Installation, rng: random.Random) -> None:
        self._system = system
        self._rng = rng
        self._started = time.monotonic()
        # One hand at a time on each server.
        self._postgres_hand = asyncio.Lock()
        self._hands = {replica.address: asyncio.Lock() for replica in system.replicas}
        self._store_share = _STORE_SHARE
        self.events: list[str] = []
        self.counts: Counter[str] = Counter()
        self._acts: Sequence[tuple[int, Callable[[], Awaitable[None]]]]
        if system.profile == SMALL:
            self._acts = [(6, self._kill_tenure), (1, self._restart_tenure)]
        else:
            self._acts = [
                (6, self._kill_tenure),
                (1, self._restart_tenure),
                (3, self._kill_postgres),
                (2, self._restart_postgres),
                (2, self._kill_store),
                (2, self._burst_of_store_errors),
                (1, self._store_away),
            ]

    def note(self, text: str) -> None:
        self.events.append(f"{time.monotonic() - self._started:8.2f} s  {text}")

    def cheat(self) -> None:
        """From now on the network loses, cuts, delays and stalls."""
        for proxy in self._system.proxies:
            proxy.dice = self._between_client_and_server
        if self._system.store_proxy:
            self._system.store_proxy.dice = self._between_server_and_store

    def behave(self) -> None:
        for proxy in (*self._system.proxies, self._system.store_proxy):
            if proxy is not None:
                proxy.dice, proxy.down = None, False

    def bases(self) -> list[str]:
        """Where a client may turn to: what a load balancer knows, which is late."""
        return [proxy.endpoint for proxy in self._system.proxies]

    async def act(self) -> None:
        """One event, sometimes two at once; returns when everything is up again."""
        weights, acts = [weight for weight, _ in self._acts], [act for _, act in self._acts]
        chosen = self._rng.choices(acts, weights, k=1 + (self._rng.random() < 0.25))
        await asyncio.gather(*(act() for act in dict.fromkeys(chosen)))

    def faults(self) -> dict[str, int]:
        """By side and kind."""
        found: Counter[str] = Counter()
        for proxy in self._system.proxies:
            found.update({f"client-server {kind}": count for kind, count in proxy.kinds.items()})
        if self._system.store_proxy:
            found.update({f"server-store {kind}": n for kind, n in self._system.store_proxy.kinds.items()})
        return dict(sorted(found.items()))

    async def _pause(self, most: float) -> None:
        await asyncio.sleep(self._rng.uniform(0, most))

    def _count(self, what: str) -> None:
        self.counts[what] += 1
        self.note(what)

    async def _kill_tenure(self) -> None:
        replica = self._a_replica()
        async with self._hands[replica.address]:
            await self._kill(replica)

    async def _kill(self, replica: Replica) -> None:
        await self._pause(0.5)
        replica.kill()
        self._count("kill -9 of Tenure")
        if self._system.folder is not None and self._rng.random() < 0.6:
            self.note(f"torn: {await asyncio.to_thread(self._system.tear, self._rng)}")
            self.counts["files torn"] += 1
        await self._pause(1.0)
        if self._rng.random() < 0.15:
            # Again, somewhere in its start.
            starting = asyncio.create_task(replica.start())
            await asyncio.sleep(self._rng.uniform(0.3, 1.5))
            starting.cancel()
            await asyncio.wait({starting})
            replica.kill()
            self._count("kill -9 of a starting Tenure")
        await self._start(replica)

    async def _restart_tenure(self) -> None:
        replica = self._a_replica()
        async with self._hands[replica.address]:
            code = await replica.end()
            self._count(f"SIGTERM to Tenure, exit code {code}")
            await self._start(replica)

    async def _start(self, replica: Replica) -> None:
        """As a supervisor does: a start that the faults of that moment spoilt is tried again."""
        for _ in range(5):
            try:
                await replica.start()
                self.note("Tenure serves again")
                return
            except RuntimeError as error:
                replica.kill()
                self._count("start refused, tried again")
                self.note(str(error).rstrip().rpartition("\n")[2][:200])
        raise RuntimeError(f"Tenure does not come back: {replica.log}")

    def _a_replica(self) -> Replica:
        return self._rng.choice(self._system.replicas)

    async def _kill_postgres(self) -> None:
        postgres = self._system.postgres
        assert postgres is not None
        async with self._postgres_hand:
            await self._pause(0.5)
            await asyncio.to_thread(postgres.kill)
            self._count("kill -9 of Postgres")
            await self._pause(2.0)
            await asyncio.to_thread(postgres.start)
            self.note("Postgres is back")

    async def _restart_postgres(self) -> None:
        postgres = self._system.postgres
        assert postgres is not None
        async with self._postgres_hand:
            await self._pause(0.5)
            await asyncio.to_thread(postgres.restart)
            self._count("restart of Postgres")

    async def _kill_store(self) -> None:
        bucket = self._system.bucket
        assert bucket is not None
        await self._pause(0.5)
        bucket.kill()
        self._count("kill -9 of SeaweedFS")
        await bucket.start()
        self.note("SeaweedFS is back")

    async def _burst_of_store_errors(self) -> None:
        self._count("burst of store errors")
        self._store_share = _BURST_SHARE
        await self._pause(2.0)
        self._store_share = _STORE_SHARE

    async def _store_away(self) -> None:
        proxy = self._system.store_proxy
        assert proxy is not None
        proxy.down = True
        self._count("store refuses connections")
        await self._pause(2.0)
        proxy.down = False

    def _between_client_and_server(self, head: bytes) -> Fault | None:
        rng = self._rng
        if rng.random() >= _CLIENT_SHARE:
            return None
        # One in ten outlasts the time that the server gives a silent client.
        stall = rng.choice([0.0, 0.0, rng.uniform(0.1, 1.0), 0.0, 5.0 if rng.random() < 0.3 else 0.0])
        return rng.choice(
            [
                Fault(reset_request_after=rng.choice([0, 1000, 300_000, 6_000_000]), stall=stall),
                Fault(reset_after=rng.choice([0, 10, 100_000]), stall=stall),
                Fault.lose_answer(),
                Fault(delay=rng.uniform(0.05, 1.0)),
            ]
        )

    def _between_server_and_store(self, head: bytes) -> Fault | None:
        rng = self._rng
        if rng.random() >= self._store_share:
            return None
        stall = rng.choice([0.0, 0.0, rng.uniform(0.1, 2.0)])
        return rng.choice(
            [
                Fault.error(503),
                Fault.error(500),
                Fault.lose_answer(),
                Fault(reset_request_after=rng.choice([0, 1000, 2_000_000]), stall=stall),
                Fault(reset_after=rng.choice([0, 50, 100_000]), stall=stall),
                Fault(delay=rng.uniform(0.1, 2.0)),
            ]
        )
