"""`tenure history`: where tags pointed before."""

from typing import Annotated

from cyclopts import Parameter

from tenure.cli.client import Client, run, split_reference
from tenure.cli.output import HERE, Column, Where, WrongUsage, note, print_list, short_digest, short_time

_COLUMNS: tuple[Column, ...] = (
    ("EVENT", lambda event: str(event.id)),
    ("WHEN", lambda event: short_time(event.at)),
    ("TAG", lambda event: event.tag),
    ("FROM", lambda event: short_digest(event.old)),
    ("TO", lambda event: short_digest(event.new)),
    ("CAUSE", lambda event: event.cause),
    ("BY", lambda event: event.actor),
)


def history(
    reference: Annotated[str, Parameter(help="REPOSITORY or REPOSITORY:TAG")],
    *,
    limit: Annotated[int, Parameter(help="How many moves at most.")] = 50,
    where: Where = HERE,
) -> int:
    """Show every move of a tag, or of all tags of a repository, newest first."""

    async def work(client: Client) -> int:
        repository, tag = split_reference(reference, client.host)
        if limit < 1:
            raise WrongUsage("--limit must be 1 or more")
        names = {"repository": repository} if tag is None else {"repository": repository, "tag": tag}
        route = "repository.history" if tag is None else "tag.history"
        found = [event async for event in client.pages(route, names, limit=limit)]
        if len(found) == limit:
            note(f"The newest {limit} moves; --limit shows more.")
        print_list(found, _COLUMNS, lambda event: event.new or event.old or "-", where.output)
        return 0

    return run(where.server, work)
