"""
Where locks are recorded.
"""

from __future__ import annotations

from typing import Final

LOCKS: Final = b".kvd-locks"
"""
The name of the value with the locks on keys below a prefix; it follows the prefix. The
dialect that has locks refuses it in paths.
"""
