"""
A plugin for the suite's pytest, loaded beside its files, which stay as they are. It writes one line of JSON a test to FREEHOLD_REPORT,
and, only with FREEHOLD_RELAX=1 and only for the tests that relaxed.json declares, it does not compare what another model must differ
in: the words of an answer (the regular expressions of match_regex) and the number of tokens of a prompt.
"""

import fnmatch
import json
import os
import re

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "relaxed.json"), encoding="utf-8") as file:
    DECLARED = json.load(file)["tests"]

#: Parameters of the suite's tests that hold words of stories260K, and those that hold lengths of prompts in its tokens.
COUNTS = ("n_prompt", "n_token_output")


class AnyCount:
    """Equals every whole number above zero."""

    def __eq__(self, other):
        return isinstance(other, int) and not isinstance(other, bool) and other > 0

    def __repr__(self):
        return "<any count of tokens>"


def any_words(regex, text):
    """The expression must be one, and there must be an answer: which words it has is the model's affair."""
    re.compile(regex)
    return isinstance(text, str) and text != ""


def is_declared(nodeid):
    name = nodeid.removeprefix("unit/")
    return any(fnmatch.fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in DECLARED)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    item = pyfuncitem
    if os.environ.get("FREEHOLD_RELAX") != "1" or not is_declared(item.nodeid):
        return None
    if hasattr(item.module, "match_regex"):
        item.module.match_regex = any_words
    params = getattr(getattr(item, "callspec", None), "params", {})
    for name in COUNTS:
        if name in params:
            item.funcargs[name] = AnyCount()
    return None


def pytest_collection_modifyitems(config, items):
    if os.environ.get("FREEHOLD_RELAX") != "1":
        return
    kept = [item for item in items if is_declared(item.nodeid)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    path = os.environ.get("FREEHOLD_REPORT")
    if path is None or (report.when != "call" and report.passed):
        return
    # A test that passed and then failed to stop its server has failed.
    result = "skipped" if report.skipped else ("passed" if report.passed else "failed")
    reason = ""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = (crash.message if crash else str(report.longrepr)).split("\n")[0][:200]
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"test": item.nodeid.removeprefix("unit/"), "result": result, "reason": reason}) + "\n")
