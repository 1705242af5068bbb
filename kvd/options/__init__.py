"""
Command line and settings file to one frozen `kvd.settings.Settings`.
"""

from kvd.options.command_line import Options

__all__ = ["Options"]
