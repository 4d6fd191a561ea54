"""Several workers on one socket, each a server of its own, so that none ends another one.

Hypercorn's own `--workers` has its main process terminate the others as soon as one has shut down,
also one that has not begun to. Here each worker is a whole Hypercorn with one worker, and all listen
on the same socket; a SIGTERM to this process is passed on to them, and each takes its own time.

    python -m examples.workers 127.0.0.1:8000 examples.shop:app 4 --worker-class trio

Under systemd a socket unit does the same: `hypercorn --bind fd://3` in as many services.
"""

import signal
import socket
import subprocess
import sys


def main(address: str, app: str, workers: str, *options: str) -> int:
    host, port = address.split(":")
    with socket.create_server((host, int(port))) as shared:
        bind = f"fd://{shared.fileno()}"
        command = [sys.executable, "-m", "hypercorn", "--bind", bind, *options, app]
        servers = [
            subprocess.Popen(command, pass_fds=[shared.fileno()]) for _ in range(int(workers))
        ]

    def pass_on(number: int, _: object) -> None:
        for server in servers:
            server.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the servers by itself
    return max(server.wait() for server in servers)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
