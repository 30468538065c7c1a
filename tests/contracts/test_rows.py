"""An activation or a rule without a row in its contract's table."""

import pytest

from bnengine.contracts import activations, update
from bnengine.errors import InputError
from bnengine.ops.update import RULES


def test_a_missing_row_names_the_file_to_write(monkeypatch):
    monkeypatch.delitem(activations.SENSITIVITIES, "silu")
    with pytest.raises(
        InputError, match=r"^contracts: .*'silu' has no row\. Write one in .*contracts/activations\.py\.$"
    ):
        activations.sensitivity_of("silu")
    monkeypatch.delitem(update.RULE_CONTRACTS, "lion")
    with pytest.raises(InputError, match=r"^contracts: .*'lion' has no row\. Write one in .*contracts/update\.py\.$"):
        update.typical(RULES["lion"], {})
