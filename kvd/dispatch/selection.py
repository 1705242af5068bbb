"""
From what an operator writes to a policy: ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``.
"""

from __future__ import annotations

from kvd.errors import BadSetting
from kvd.interfaces import IConfigurablePolicy, IDispatchPolicy
from kvd.plugins import IPolicyDeclaration, load


def load_policy(text: str) -> IDispatchPolicy:
    """
    The policy that is meant.

    Raises:
        UnknownPlugin: There is none of that name.
        BrokenPlugin: It cannot be loaded.
        BadSetting: The options are none, or it has none.
    """
    name, colon, rest = text.partition(":")
    policy: IDispatchPolicy = load(IPolicyDeclaration, name)
    if not colon:
        return policy
    options: dict[str, str] = {}
    for option in rest.split(","):
        key, equals, value = option.partition("=")
        if not (key and equals and value) or key in options:
            raise BadSetting(
                f"the options of a policy are written {name}:KEY=VALUE,KEY=VALUE, each"
                f" key once; got {text!r}"
            )
        options[key] = value
    if not IConfigurablePolicy.providedBy(policy):
        raise BadSetting(f"the policy {name!r} has no options; got {text!r}")
    configured: IDispatchPolicy = IConfigurablePolicy(policy).with_options(options)
    return configured
