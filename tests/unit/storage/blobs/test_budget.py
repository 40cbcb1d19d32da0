"""Memory is lent in order, given back whatever happens, and never beyond the limit."""

import asyncio
import random

import pytest

from tenure.storage.blobs.budget import MemoryBudget, Share


async def test_those_who_wait_are_served_in_order() -> None:
    share = Share(10)
    first = await share.take(8)
    served: list[str] = []

    async def want(name: str, size: int) -> None:
        async with share.hold(size):
            served.append(name)

    large = asyncio.create_task(want("large", 9))
    await asyncio.sleep(0)
    small = asyncio.create_task(want("small", 1))
    await asyncio.sleep(0)
    # One byte would fit, but the large one stands before it.
    assert served == []
    assert share.waiting == 2
    first.release()
    await asyncio.gather(large, small)
    assert served == ["large", "small"]
    assert share.held == 0


async def test_a_wish_beyond_the_limit_is_cut_to_it() -> None:
    share = Share(10)
    loan = await asyncio.wait_for(share.take(1000), 1)
    assert loan.size == 10
    loan.release()
    loan.release()
    assert share.held == 0


async def test_taking_at_once_passes_nobody() -> None:
    share = Share(10)
    loan = share.try_take(6)
    assert loan is not None
    waiting = asyncio.create_task(share.take(5))
    await asyncio.sleep(0)
    assert share.try_take(1) is None
    loan.release()
    (await waiting).release()
    assert share.try_take(11) is not None


async def test_a_cancelled_wait_lets_the_next_one_through() -> None:
    share = Share(10)
    loan = await share.take(5)
    large = asyncio.create_task(share.take(10))
    small = asyncio.create_task(share.take(5))
    await asyncio.sleep(0)
    large.cancel()
    second = await asyncio.wait_for(small, 1)
    assert share.held == 10
    loan.release()
    second.release()


async def test_a_wait_cancelled_in_the_turn_it_was_served_leaves_nothing_held() -> None:
    share = Share(10)
    loan = await share.take(10)
    waiting = asyncio.create_task(share.take(10))
    await asyncio.sleep(0)
    loan.release()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert share.held == 0


@pytest.mark.parametrize("seed", range(8))
async def test_random_cancellation_leaves_nothing_held(seed: int) -> None:
    dice = random.Random(seed)
    share = Share(100)

    async def work(size: int, turns: int) -> None:
        async with share.hold(size):
            assert share.held <= share.limit
            for _ in range(turns):
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(work(dice.randint(1, 120), dice.randint(0, 5))) for _ in range(300)]
    for _ in range(150):
        await asyncio.sleep(0)
        dice.choice(tasks).cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert share.held == 0
    assert share.waiting == 0
    assert share.peak <= share.limit


async def test_the_shares_together_are_the_limit() -> None:
    for limit in (64, 16 << 20, 128 << 20):
        budget = MemoryBudget(limit)
        assert budget.first.limit + budget.parts.limit + budget.reads.limit == limit
        for share in (budget.first, budget.parts, budget.reads):
            await share.take(limit)
        assert budget.held == budget.peak == limit


async def test_what_is_kept_without_need_is_given_back_before_anybody_waits() -> None:
    share = Share(10)
    kept = [await share.take(4), await share.take(4)]

    def give_back() -> None:
        share.reclaim.discard(give_back)
        for loan in kept:
            loan.release()

    share.reclaim.add(give_back)
    assert (await share.take(2)).size == 2
    assert share.reclaim == {give_back}
    assert (await asyncio.wait_for(share.take(8), 5)).size == 8
    assert (share.held, share.reclaim) == (10, set())
