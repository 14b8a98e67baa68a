"""The pages that are added to Flower's: the fleet, what moves on it, and a batch's report and result.

Flower has no way to add pages; its list of handlers and its template loader are changed before it starts. That is
nobody's promise: Flower is pinned, and tests hold it.
"""

from __future__ import annotations

from pathlib import Path

import flower.urls
from flower.views import BaseHandler
from redis import RedisError
from tornado.ioloop import IOLoop
from tornado.template import Loader, Template
from tornado.web import StaticFileHandler, authenticated, url

from cloner.errors import ClonerError, reason_of
from cloner.monitoring.flower.board import Board
from cloner.report.page import css
from cloner.settings import Settings

HERE = Path(__file__).parent
NAVIGATION = '<ul class="app-nav navbar-nav">'
LINK = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'fleet' %} active{% end %}" href="{{ reverse_url('fleet') }}"
            {% if active_tab == 'fleet' %}aria-current="page"{% end %}>Fleet</a>
        </li>"""


def install(settings: Settings) -> None:
    """Add the pages. Flower's own come first where the two share a start, so ours are put before them."""
    board = Board(settings)
    flower.urls.handlers[:0] = [
        url(r"/fleet", FleetPage, name="fleet"),
        url(r"/fleet/now", FleetNow, {"board": board}),
        url(r"/fleet/batch/([A-Za-z0-9_-]+)", ReportPage, {"board": board}),
        url(r"/fleet/batch/([A-Za-z0-9_-]+)\.json", ResultPage, {"board": board}),
        url(r"/fleet/files/(.*)", StaticFileHandler, {"path": str(HERE / "files")}),
    ]
    flower.urls.settings["template_loader"] = Templates(flower.urls.settings["template_path"])


class Templates(Loader):
    """Flower's templates, with the fleet's page in their navigation."""

    def _create_template(self, name: str) -> Template:
        if name != "navbar.html":
            return super()._create_template(name)
        text = Path(self.root, name).read_text(encoding="utf-8")
        return Template(text.replace(NAVIGATION, NAVIGATION + LINK, 1), name=name, loader=self)


class FleetPage(BaseHandler):  # type: ignore[misc] # Flower has no types
    """The page itself; what it shows comes from `FleetNow`."""

    @authenticated
    def get(self) -> None:
        self.render(str(HERE / "fleet.html"))


class _FromBoard(BaseHandler):  # type: ignore[misc]
    def initialize(self, board: Board) -> None:
        self.board = board

    def refuse(self, status: int, error: Exception) -> None:
        self.set_status(status)
        self.write({"error": reason_of(error)})


class FleetNow(_FromBoard):
    """The fleet at this moment, as JSON. 503 while Redis is away."""

    @authenticated
    async def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        try:
            self.write(await IOLoop.current().run_in_executor(None, self.board.look))
        except RedisError as error:
            self.refuse(503, error)


class ReportPage(_FromBoard):
    """A closed batch's report, with Flower's navigation and colours."""

    @authenticated
    async def get(self, batch_id: str) -> None:
        try:
            self.show(batch_id, await IOLoop.current().run_in_executor(None, self.board.report, batch_id))
        except RedisError as error:
            self.set_status(503)
            self.show(batch_id, trouble=reason_of(error))
        except ClonerError as error:
            self.set_status(404)
            self.show(batch_id, trouble=error.message)

    def show(self, batch_id: str, report: str = "", trouble: str = "") -> None:
        self.render(str(HERE / "report.html"), css=css(), batch_id=batch_id, report=report, trouble=trouble)


class ResultPage(_FromBoard):
    """A closed batch's result, as JSON."""

    @authenticated
    async def get(self, batch_id: str) -> None:
        try:
            result = await IOLoop.current().run_in_executor(None, self.board.result, batch_id)
        except RedisError as error:
            self.refuse(503, error)
        except ClonerError as error:
            self.refuse(404, error)
        else:
            self.set_header("Content-Type", "application/json; charset=utf-8")
            self.write(result)
