"""The worker loop: takes due jobs under a lease, runs each apart from the others, keeps its lease alive.

Any replica may run any job, none must, and no two run one at once: a job is a row that one of them took. A
job that fails is tried again later and later (6 h at most) and disturbs no other. A recurring job is a row
too; its handler says when it is due again.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from tenure.core.clock import SECOND
from tenure.core.errors import StorageUnavailable, TenureError
from tenure.core.ids import new_ulid
from tenure.gc.settings import GcSettings
from tenure.storage.blobs.driver import BlobDriver
from tenure.storage.meta.database import ConstraintRefused, Database, Session
from tenure.storage.meta.jobs import Job, ensure_job, fail_job, finish_job, renew_job, take_jobs

_log = structlog.get_logger("tenure.gc.worker")
_CLOSING = 5.0  # seconds a cancelled worker takes at most to give its jobs back


@dataclass(frozen=True, slots=True)
class Task:
    """What a handler works with. `db` and `driver` are shared; `job` is its own while it runs."""

    db: Database
    driver: BlobDriver
    settings: GcSettings
    job: Job

    async def due_in(self, delay: int) -> int:
        """The time `delay` microseconds from now on the database's clock: what a recurring handler returns."""
        return await _now(self.db) + delay


#: does the job; when it is due again in microseconds on the database's clock, or None when it is done for good
Handler = Callable[[Task], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class Duty:
    """One kind of job. `recurring` ones are put into the table by the worker itself, under the key ''."""

    kind: str
    handler: Handler
    recurring: bool = False


class Worker:
    """Runs duties until it is cancelled. One a process; `run` is called once."""

    def __init__(self, db: Database, driver: BlobDriver, settings: GcSettings, duties: Mapping[str, Duty]) -> None:
        self._db = db
        self._driver = driver
        self._settings = settings
        self._duties = duties
        self._owner = new_ulid()
        self._woken = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Look for due jobs now: something of this process has just asked for one."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled; then running jobs are stopped and given back at once for others to take."""
        try:
            await self._announce()
            while True:
                self._woken.clear()
                if not await self._take():
                    await self._rest()
        finally:
            await self._stop()

    async def _announce(self) -> None:
        recurring = [duty for duty in self._duties.values() if duty.recurring]

        async def work(session: Session) -> None:
            now = await session.now()
            for duty in sorted(recurring, key=lambda duty: duty.kind):
                await ensure_job(session, duty.kind, "", payload={}, due_at=now)

        while True:
            try:
                return await self._db.transact(work)
            except (StorageUnavailable, ConstraintRefused) as error:
                _log.warning("cannot announce recurring jobs", error=str(error))
                await self._rest()

    async def _take(self) -> bool:
        """Start as many due jobs as there are free places; whether there was any."""
        free = self._settings.jobs - len(self._running)
        if free <= 0:
            return False
        taking = asyncio.ensure_future(
            take_jobs(self._db, self._owner, kinds=sorted(self._duties), limit=free, lease=self._settings.lease)
        )
        try:
            jobs = await asyncio.shield(taking)
        except asyncio.CancelledError:
            # What was taken in this moment must not wait for its lease to run out.
            with contextlib.suppress(TimeoutError, TenureError):
                for job in await asyncio.wait_for(taking, _CLOSING):
                    await self._give_back(job)
            raise
        except StorageUnavailable as error:
            _log.warning("cannot take jobs", error=error.message)
            return False
        except Exception:
            _log.exception("cannot take jobs")
            return False
        for job in jobs:
            running = asyncio.create_task(self._one(job), name=f"job {job.kind} {job.key}")
            self._running.add(running)
            running.add_done_callback(self._ended)
        return bool(jobs)

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        self._woken.set()

    async def _rest(self) -> None:
        # Jitter, so that replicas started together do not ask together for ever.
        pause = self._settings.poll / SECOND * random.uniform(0.75, 1.25)
        with contextlib.suppress(TimeoutError):
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes as the event is set.
            async with asyncio.timeout(pause):
                await self._woken.wait()

    async def _stop(self) -> None:
        for running in self._running:
            running.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=2 * _CLOSING)

    async def _one(self, job: Job) -> None:
        """Outermost loop of one job: whatever happens in it ends here, as a log line and a later try."""
        log = _log.bind(kind=job.kind, key=job.key, attempt=job.attempts)
        task = Task(self._db, self._driver, self._settings, job)
        try:
            due = await self._leased(job, self._duties[job.kind].handler(task))
            await finish_job(self._db, job, next_due=due)
        except asyncio.CancelledError:
            await self._give_back(job)
            raise
        except LeaseLost:
            log.warning("job was taken over: its lease had run out")
        except Exception as error:
            log.exception("job failed")
            await self._fail(job, f"{type(error).__name__}: {error}")

    async def _leased(self, job: Job, work: Awaitable[int | None]) -> int | None:
        """Run `work` and renew the lease beside it; LeaseLost when that is not possible any more."""
        working = asyncio.ensure_future(work)
        keeping = asyncio.create_task(self._keep(job))
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise LeaseLost
            return working.result()
        finally:
            for one in (working, keeping):
                one.cancel()
            # Both must be over before the job is given back, or it could run twice.
            await asyncio.gather(working, keeping, return_exceptions=True)

    async def _keep(self, job: Job) -> None:
        """Returns when the lease is lost, or may be: the database did not answer for as long as it lasts."""
        loop = asyncio.get_running_loop()
        lease = self._settings.lease / SECOND
        safe_until = loop.time() + lease
        while loop.time() < safe_until:
            await asyncio.sleep(lease / 3)
            asked = loop.time()
            try:
                async with asyncio.timeout_at(safe_until):
                    if not await renew_job(self._db, job, lease=self._settings.lease, progress=job.progress):
                        return
                safe_until = asked + lease
            except (TimeoutError, StorageUnavailable) as error:
                _log.warning("cannot renew a lease", kind=job.kind, key=job.key, error=str(error))

    async def _give_back(self, job: Job) -> None:
        async def work() -> None:
            await finish_job(self._db, job, next_due=await _now(self._db))

        try:
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(work())), _CLOSING)
        except (TimeoutError, TenureError):
            _log.warning("cannot give a job back: it waits until its lease runs out", kind=job.kind, key=job.key)

    async def _fail(self, job: Job, error: str) -> None:
        try:
            await fail_job(self._db, job, error)
        except StorageUnavailable:
            _log.warning("cannot note a failure: the job waits until its lease runs out", kind=job.kind, key=job.key)


class LeaseLost(Exception):
    """Somebody else may have this job now; stop."""


async def _now(db: Database) -> int:
    async def work(session: Session) -> int:
        return await session.now()

    return await db.transact(work)
