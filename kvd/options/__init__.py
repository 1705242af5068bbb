"""
Reads the command line and the settings file into a frozen `kvd.settings.Settings`.
"""

from kvd.options.command_line import Options

__all__ = ["Options"]
