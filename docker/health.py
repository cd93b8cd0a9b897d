"""The image's HEALTHCHECK: 0 where this container's server answers with 200, else 1. Standard library only.

``FUSIONREC_HEALTH_URL`` names the address; without it there is no server to ask, and a container that runs is healthy.
"""

import os
import sys
import urllib.error
import urllib.request


def healthy(url: str, seconds: float = 5.0) -> bool:
    """Whether ``url`` answers with 200 in time. Only http to this container itself is asked."""
    if not url.startswith("http://127.0.0.1:"):
        raise SystemExit(f"FUSIONREC_HEALTH_URL must start with http://127.0.0.1:, found {url[:80]!r}")
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310  (checked above)
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


if __name__ == "__main__":
    address = os.environ.get("FUSIONREC_HEALTH_URL", "")
    sys.exit(0 if not address or healthy(address) else 1)
