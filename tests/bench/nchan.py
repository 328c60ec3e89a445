"""Debian's nginx with its module nchan, a publish/subscribe server in C: one process, with a file of its own.

Where it is not installed there is nothing to compare with; `make test-packages` installs it. It keeps as many messages
as the node does, in its own memory, and answers at the node's paths.
"""

from __future__ import annotations

import shutil
from pathlib import Path

NAME = "nginx"
MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
PROBE = "/readyz"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
CONFIG = """\
load_module {module};
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    {temporary}
    keepalive_requests 1000000000;
    nchan_shared_memory_size 128M;
    server {{
        listen 127.0.0.1:{port};
        location = /readyz {{ return 200 ""; }}
        location = /ws {{
            nchan_subscriber websocket;
            nchan_channel_id $arg_channels;
            nchan_subscriber_first_message newest;
        }}
        location = /api/queue/publish {{
            nchan_publisher http;
            nchan_channel_id $arg_channel;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 300s;
        }}
    }}
}}
"""
"""Without a master there is one process to pin, to weigh and to end."""


def binary() -> str | None:
    """The program, if this machine has it and the module."""
    program = shutil.which(NAME) or shutil.which(NAME, path="/usr/sbin")  # only root has that folder in its PATH
    return program if MODULE.exists() else None


def command(program: str, directory: Path, port: int) -> list[str]:
    """How to run it."""
    temporary = "\n    ".join(f"{name}_temp_path {directory}/nginx-{name};" for name in TEMPORARY)
    config = directory / "nginx.conf"
    config.write_text(CONFIG.format(module=MODULE, directory=directory, temporary=temporary, port=port))
    return [program, "-p", str(directory), "-c", str(config), "-e", "stderr"]
