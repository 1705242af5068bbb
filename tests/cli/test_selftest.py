"""
The tests of `kvd.cli.selftest`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.cli.selftest import Finding, SelfTest
from kvd.errors import ConditionUnsupported
from kvd.interfaces import Answer, IUpload
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.values import NO_METADATA, Metadata
from kvd.store.memory import MemoryStore


class Careless(MemoryStore):
    """
    A store that does not look at conditions.
    """

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        upload: Any = super().begin(key, length, metadata)
        commit = upload.commit
        upload.commit = lambda _: commit(UNCONDITIONAL)
        return upload  # type: ignore[no-any-return]

    def remove(self, key: Key, conditions: Conditions) -> Answer[None]:
        return super().remove(key, UNCONDITIONAL)


class Honest(MemoryStore):
    """
    A store that refuses conditions.
    """

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        if conditions != UNCONDITIONAL:
            raise ConditionUnsupported("It cannot.")
        return super().begin(key, length, metadata)

    def remove(self, key: Key, conditions: Conditions) -> Answer[None]:
        if (
            conditions.if_match
            and self.values[key][0].etag in conditions.if_match.strong
        ):
            raise ConditionUnsupported("It cannot.")
        return super().remove(key, conditions)


class SelfTestTests(SynchronousTestCase):
    """
    A store is tried, and nothing of that stays.
    """

    def find(self, store: MemoryStore) -> dict[str, Finding]:
        """
        All findings.
        """
        trial = SelfTest(store, rounds=2, writers=3)
        findings = {
            name: self.successResultOf(Deferred.fromCoroutine(test()))
            for name, test in trial.tests().items()
        }
        self.successResultOf(Deferred.fromCoroutine(trial.clean()))
        assert {} == store.values
        return findings

    def test_good_store(self) -> None:
        """
        Everything is fine.
        """
        findings = self.find(MemoryStore())

        assert {"fine", "kept"} == {finding.said for finding in findings.values()}
        assert all(finding.fine for finding in findings.values())

    def test_store_that_keeps_no_conditions(self) -> None:
        """
        Each is found, with how many writers won.
        """
        findings = self.find(Careless())
        bad = [name for name, finding in findings.items() if not finding.fine]

        assert 5 == len(bad)
        assert all("If-" in name for name in bad)
        said = findings["If-Match on PUT"].said
        assert "NOT KEPT: 3 of 3 writers succeeded" == said

    def test_store_that_refuses_conditions(self) -> None:
        """
        That is no failure.
        """
        findings = self.find(Honest())

        assert all(finding.fine for finding in findings.values())
        for name in ("If-None-Match on PUT", "If-Match on DELETE"):
            assert "refused (501): It cannot." == findings[name].said
