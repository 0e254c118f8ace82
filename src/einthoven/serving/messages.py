"""Messages between the service and the processes that read for it: JSON and plain bytes."""

from __future__ import annotations

import json
import struct
from typing import Any

# Bytes of a message's header and of what follows it.
MESSAGE_HEAD = struct.Struct(">II")


def pack_message(values: dict[str, Any], body: bytes = b"") -> bytes:
    """A message of either side: lengths, JSON, bytes."""
    header = json.dumps(values).encode()
    return MESSAGE_HEAD.pack(len(header), len(body)) + header + body
