"""Errors sorted by what the caller must do (layer 0)."""


class TrackdError(Exception):
    """Base of what the daemon's parts raise on purpose."""


class StoreError(TrackdError):
    """A store failed; nothing of the failed part was taken. Try again later."""


class StoreFullError(StoreError):
    """No space (or no quota) left for the store. Try again when there is."""


class ConflictError(TrackdError):
    """The change would collide with something that exists (a name that is taken). Ask the user."""


class QueryError(TrackdError):
    """A mistake in a question (where, sort, cursor). Tell the user."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position
        """0-based character of the text at which the mistake stands."""
