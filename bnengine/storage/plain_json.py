"""Values as JSON can hold them: it has no words for infinity and NaN."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any


def plain(value: Any) -> Any:
    """The same in objects and lists, with names that are strings; what is not finite is None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def dumps(value: Any) -> str:
    """Its text, on one line, in ASCII."""
    return json.dumps(plain(value), allow_nan=False)
