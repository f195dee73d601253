"""The errors a person's request can meet."""

from realkit import tokens


class RequestError(ValueError):
    """A request that cannot be met as written. One line, without secrets: what was given, what was expected, what to do. Exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(tokens.scrub(message).splitlines()))


class RunError(RequestError):
    """What was asked for was right, was begun, and could not be gone on with: the disk, the cluster or Kaggle refused. What is done is kept. Exit code 1."""
