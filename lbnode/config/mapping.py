"""What every mapping of the cluster file is: frozen, hashable, strict about its keys. PURE."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Frozen, hashable, strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
