"""What the cluster file says of how a node stops announcing: in order, because nobody decides any more, or because a
VIP comes and goes. PURE."""

from typing import Annotated, Literal

from pydantic import Field

from lbnode.config.frozen import Model
from lbnode.config.numbers import Between

Number = Annotated[int, Between(0, 4294967295)]


class Leaving(Model):
    """How a node that people take out of service stops announcing: it is made a second choice, waits, and withdraws."""

    step: Literal["graceful-shutdown", "med", "local-preference", "none"] = Field(
        "graceful-shutdown",
        description="What makes it a second choice: the community GRACEFUL_SHUTDOWN (65535:0, RFC 8326), a MED, or a "
        "local preference (peers of another AS get the MED); none: it withdraws at once.",
    )
    step_s: Annotated[float, Between(0, 3600)] = Field(
        5, description="Seconds from that until it withdraws: long enough for every router to choose another node."
    )
    limit_s: Annotated[float, Between(0, 86400)] = Field(
        30, description="Seconds after the withdrawal in which it waits for the last packets at most."
    )
    med: Number = Field(1000000, description="The MED of a second choice, with `step: med`.")
    local_preference: Number = Field(
        0, description="The local preference of a second choice, with `step: local-preference`."
    )


class DeadMan(Model):
    """What becomes of the announcements when the agent gives no sign of life any more."""

    after_s: Annotated[int, Between(3, 86400)] = Field(30, description="Seconds without one.")
    then: Literal["keep", "withdraw"] = Field(
        "keep", description="keep: they stay, as they stay when it ends in good order; withdraw: all of them go."
    )


class Damping(Model):
    """A VIP that was withdrawn too often because of its real servers is announced as a second choice for a while, as
    `leaving` says (by MED where that has no step)."""

    flaps: Annotated[int, Between(0, 100)] = Field(
        3, description="How many withdrawals, the earlier ones counting less and less, are too many; 0: no damping."
    )
    half_life_s: Annotated[int, Between(1, 86400)] = Field(
        120,
        description="Seconds after which a withdrawal counts half; when all of them count for less than one, it ends.",
    )
    longest_s: Annotated[int, Between(1, 86400)] = Field(
        600, description="It ends at the latest so many seconds after the last withdrawal."
    )
