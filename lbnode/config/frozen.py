"""What every mapping of the cluster file has in common: it is frozen, hashable, and strict about its keys. PURE."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Frozen, hashable, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
