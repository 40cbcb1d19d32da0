"""The one question both applications ask before they do anything: may this origin do this here?"""

from typing import Protocol

from tenure.core.origin import Origin

#: what a route may need; `pull` on a repository is also what listing it needs
ACTIONS = ("pull", "push", "delete", "admin")


class Access(Protocol):
    """Decides about one request. Called on every path that reads, overwrites or destroys."""

    def check(self, origin: Origin, action: str, repository: str | None) -> None:
        """Returns when `origin` may do `action` (of ACTIONS); `repository` None means the whole registry.

        Raises Unauthorized when signing in could help, Denied when it could not.
        """


class OpenAccess:
    """A registry without accounts: whoever reaches the address may do everything."""

    def check(self, origin: Origin, action: str, repository: str | None) -> None:
        """Never refuses; ValueError for an action that does not exist, which is a mistake in a route table."""
        if action not in ACTIONS:
            raise ValueError(f"{action!r} is not an action")
