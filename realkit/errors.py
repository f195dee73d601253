"""The one error a person's request can meet."""


class RequestError(ValueError):
    """A request that cannot be met as written. One line: what was given, what was expected, what to do. Exit code 2."""
