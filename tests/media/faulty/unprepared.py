"""A decoder that does not start."""

import no_such_package_anywhere  # noqa: F401


def decode(data: bytes) -> None: ...
