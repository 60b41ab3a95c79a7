"""The nftables driver on whatever kernel runs the tests: user-mode-linux has no table of family inet."""

import pytest

from lbnode.net import nfnetlink
from lbnode.net.filter import FilterDriver
from lbnode.plan import diff
from lbnode.resources import MssClamp

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

WANTED = [MssClamp("198.51.100.1", 1436)]
REFUSED = (
    "cannot write table inet lbnode: this kernel has no nf_tables: load the module nf_tables, or use a kernel with "
    "CONFIG_NF_TABLES_INET"
)


def has_nf_tables() -> bool:
    try:
        nfnetlink.try_table("lbnode")
    except OSError:
        return False
    return True


def test_where_no_table_is_wanted_none_is_needed() -> None:
    assert FilterDriver().observe([]).rows == ()
    assert FilterDriver().apply([]) == []


def test_a_kernel_without_nf_tables_is_named_and_how_to_mend_it() -> None:
    driver = FilterDriver()
    assert driver.observe(WANTED).rows == ()
    (result,) = driver.apply(diff((), WANTED).changes)
    assert result.error == ("" if has_nf_tables() else REFUSED)
    assert driver.observe(WANTED).rows == (tuple(WANTED) if has_nf_tables() else ())
