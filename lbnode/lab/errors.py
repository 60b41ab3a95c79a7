"""What can go wrong in a lab before the thing under test is even reached.

One class: nobody recovers from these, they are shown and the command ends. The exit code is that of sysexits'
EX_UNAVAILABLE: something the lab needs is not there, or did not come up in time.
"""

from lbnode.errors import LbnodeError


class LabError(LbnodeError):
    """The lab cannot do what was asked; the message says what and why ("cannot X: why")."""

    exit_code = 69
