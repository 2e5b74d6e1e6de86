"""Loaded by schemathesis: for JSON Schema 5.0 is an integer, which chatd does not take for one."""

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    if isinstance(case.body, dict):
        case.body = {name: whole(value) for name, value in case.body.items()}


def whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
