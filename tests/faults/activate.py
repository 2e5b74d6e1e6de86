"""Become a command that finds a listening socket as systemd passes it: `activate.py FD COMMAND ...`."""

import os
import sys


def main() -> None:
    number, *command = sys.argv[1:]
    os.dup2(int(number), 3, inheritable=True)
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    os.execvp(command[0], command)


main()
