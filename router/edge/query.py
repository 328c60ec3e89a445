"""Queries: from the parameters of a URL to a typed Struct, or to a problem that names the parameter.

The Struct that decodes also describes the parameters in the OpenAPI document. Unknown parameters are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from router.edge.body import rejection

T = TypeVar("T")


class Query(Generic[T]):
    """Decodes query parameters into one Struct; numbers and booleans are read from their text."""

    def __init__(self, target: type[T]) -> None:
        self.target = target

    def decode(self, parameters: Mapping[str, str]) -> T:
        """The typed parameters. Raises `BadInput` with the parameter's bare name as its pointer."""
        try:
            return msgspec.convert(parameters, self.target, strict=False)
        except msgspec.ValidationError as error:
            raise rejection(error, self.target, top="") from None
