"""Numbers of the cluster file, read strictly from the text that was written, within their bounds. PURE."""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lbnode.config.mistakes import WrongNumber, shown

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Between:
    """Annotates int and float: the value lies between `low` and `high`, both included."""

    low: float
    high: float

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        check = self.whole if source is int else self.decimal
        return core_schema.no_info_before_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "minimum": self.low, "maximum": self.high}

    def whole(self, value: object) -> int:
        # No octal 010, no sexagesimal 1:20, no 1_000: YAML 1.1 gives each of them a meaning that surprises.
        if isinstance(value, str) and re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,18})", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise WrongNumber(f"{shown(value)} is not a whole number", "use decimal digits, without a leading 0")
        return self.inside(value)

    def decimal(self, value: object) -> float:
        if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,19}(\.[0-9]{1,19})?", value):
            value = float(value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise WrongNumber(f"{shown(value)} is not a number", "write it as 2 or 0.5")
        return self.inside(float(value))

    def inside(self, number: Number) -> Number:
        if not self.low <= number <= self.high:
            raise WrongNumber(f"{number:.15g} is not between {self.low:.15g} and {self.high:.15g}")
        return number
