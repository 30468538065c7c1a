"""Where all tests are run, the kernels are compiled while those run that need none."""

import shutil

import pytest

from tests.cuda_on_cpu.instances import INSTANCES
from tests.cuda_on_cpu.launch import compile_ahead, give_up_compiling

MANY = 2000  # tests: more than a folder has


def pytest_collection_finish(session: pytest.Session) -> None:
    if len(session.items) > MANY and shutil.which("g++"):
        compile_ahead(INSTANCES, at_once=1)


def pytest_sessionfinish() -> None:
    give_up_compiling()
