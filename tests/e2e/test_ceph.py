"""The suites of the blob drivers and of uploads on a third store, whose S3 is not SeaweedFS's: Ceph's gateway."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.ceph import ceph, missing
from helpers.s3 import create_bucket

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
#: what asks most of a store; the rest of the protocol is the same on any
SUITES = (
    "tests/suites/test_blob_driver.py",
    "tests/suites/test_blob_driver_faults.py",
    "tests/protocol/test_upload_crashes.py",
    "tests/lifecycle/test_two_replicas.py",
)


@pytest.mark.timeout(600)
def test_the_suites_of_the_store_pass_on_ceph(tmp_path: Path) -> None:
    assert not missing(), f"apt-get install ceph-mon ceph-osd ceph-common radosgw; there is no {missing()}"
    with ceph(tmp_path) as store:
        asyncio.run(create_bucket(store, "tenure"))
        environment = {
            **os.environ,
            "TENURE_TEST_S3_URL": "s3://tenure",
            "TENURE_TEST_S3_ENDPOINT": store.endpoint,
            "TENURE_TEST_S3_KEY": store.access_key,
            "TENURE_TEST_S3_SECRET": store.secret_key,
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES]
        told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(told.stdout[-3000:])
    assert told.returncode == 0, told.stdout[-6000:]
    passed = re.search(r"(\d+) passed", told.stdout)
    assert passed and int(passed[1]) > 100 and "skipped" not in told.stdout
