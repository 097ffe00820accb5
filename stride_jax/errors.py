"""The one exception that means "your input, not our code"."""


class InputError(ValueError):
    """Bad input from the user: shapes, values, files, configuration, checkpoints.

    The message names the offending value and says what to do. The command-line programs print it
    as one line and exit with status 2; any other exception is a bug and keeps its traceback.
    """
