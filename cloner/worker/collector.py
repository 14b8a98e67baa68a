"""``python -m cloner.worker.collector``: the CPU worker that opens and closes batches."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run until told to stop."""
    from cloner.errors import ClonerError
    from cloner.logs import configure, get_logger
    from cloner.orphan import die_with_parent
    from cloner.settings import load_settings

    configure()
    try:
        settings = load_settings()
        name = f"collector@{settings.box}"
        configure(worker=name)
        die_with_parent()
        os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
        from cloner.app import make_app, run_worker

        app = make_app(settings)
        return run_worker(app, "cloner.worker.collect", name, [settings.names.collector_queue])
    except ClonerError as error:
        get_logger().error(error.message)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
