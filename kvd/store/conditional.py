"""
Which stores keep conditions.
"""

from __future__ import annotations

from kvd.interfaces import Answer, IConditionalStore, IStore


def keeps_conditions(store: IStore) -> Answer[bool]:
    """
    Whether a store keeps what `IConditionalStore.keeps_conditions` says.
    """
    if IConditionalStore.providedBy(store):
        return IConditionalStore(store).keeps_conditions()
    return store.durability != "none"
