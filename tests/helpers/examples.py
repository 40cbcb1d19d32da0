"""How many examples property tests and state machines try: TENURE_TEST_EXAMPLES, few in `make test`."""

import os

from hypothesis import HealthCheck, settings

#: enough to notice what is broken outright; `make safety-ci` and `make safety` ask for more
FEW = 25

settings.register_profile(
    "tenure",
    max_examples=int(os.environ.get("TENURE_TEST_EXAMPLES", FEW)),
    # A database and a busy machine stand between an example and its end.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("tenure")
