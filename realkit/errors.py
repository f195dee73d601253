"""The one error a person's request can meet."""

from realkit import tokens


class RequestError(ValueError):
    """A request that cannot be met as written. One line, without secrets: what was given, what was expected, what to do. Exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(tokens.scrub(message).splitlines()))
