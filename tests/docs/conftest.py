"""One furnished checkout for all tests of the documents."""

from __future__ import annotations

import pytest

from tests.docs.checkout import Checkout, furnish


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Checkout:
    """Tests write into it: files of later examples may be those of earlier ones."""
    return furnish(Checkout.make(tmp_path_factory.mktemp("checkout")))
