"""The pages that are added to Flower: the fleet page, its data, and a batch's report and result.

Flower has no interface for adding pages, so its list of handlers and its template loader are changed before it starts.
Since that may break with any release, Flower's version is pinned and tests cover these pages.
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
from cloner.monitoring.flower.data import FleetData
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
    """Add the pages, before Flower's own: the first handler whose pattern matches is used."""
    data = FleetData(settings)
    flower.urls.handlers[:0] = [
        url(r"/", FirstPage),
        url(r"/fleet", FleetPage, name="fleet"),
        url(r"/fleet/now", FleetJson, {"data": data}),
        url(r"/fleet/batch/([A-Za-z0-9_-]+)", ReportPage, {"data": data}),
        url(r"/fleet/batch/([A-Za-z0-9_-]+)\.json", ResultPage, {"data": data}),
        url(r"/fleet/files/(.*)", StaticFileHandler, {"path": str(HERE / "files")}),
    ]
    flower.urls.settings["template_loader"] = Templates(flower.urls.settings["template_path"])


class Templates(Loader):
    """Flower's templates, with a link to the fleet page in the navigation bar."""

    def _create_template(self, name: str) -> Template:
        if name != "navbar.html":
            return super()._create_template(name)
        text = Path(self.root, name).read_text(encoding="utf-8")
        return Template(text.replace(NAVIGATION, NAVIGATION + LINK, 1), name=name, loader=self)


class FirstPage(BaseHandler):  # type: ignore[misc] # Flower has no types
    """Flower's own first page is that of Celery's workers, which it has under ``/workers``, too."""

    @authenticated
    def get(self) -> None:
        self.redirect(self.reverse_url("fleet"))


class FleetPage(BaseHandler):  # type: ignore[misc]
    """The fleet page; its script gets the data from `FleetJson`."""

    @authenticated
    def get(self) -> None:
        self.render(str(HERE / "fleet.html"))


class _DataHandler(BaseHandler):  # type: ignore[misc]
    def initialize(self, data: FleetData) -> None:
        self.data = data

    def refuse(self, status: int, error: Exception) -> None:
        self.set_status(status)
        self.write({"error": reason_of(error)})


class FleetJson(_DataHandler):
    """The fleet's state, as JSON. The status is 503 while Redis does not answer."""

    @authenticated
    async def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        try:
            self.write(await IOLoop.current().run_in_executor(None, self.data.snapshot))
        except RedisError as error:
            self.refuse(503, error)


class ReportPage(_DataHandler):
    """A closed batch's report, with Flower's navigation and colours."""

    @authenticated
    async def get(self, batch_id: str) -> None:
        try:
            self.show(batch_id, await IOLoop.current().run_in_executor(None, self.data.report, batch_id))
        except RedisError as error:
            self.set_status(503)
            self.show(batch_id, problem=reason_of(error))
        except ClonerError as error:
            self.set_status(404)
            self.show(batch_id, problem=error.message)

    def show(self, batch_id: str, report: str = "", problem: str = "") -> None:
        self.render(str(HERE / "report.html"), css=css(), batch_id=batch_id, report=report, problem=problem)


class ResultPage(_DataHandler):
    """A closed batch's result, as JSON."""

    @authenticated
    async def get(self, batch_id: str) -> None:
        try:
            result = await IOLoop.current().run_in_executor(None, self.data.result, batch_id)
        except RedisError as error:
            self.refuse(503, error)
        except ClonerError as error:
            self.refuse(404, error)
        else:
            self.set_header("Content-Type", "application/json; charset=utf-8")
            self.write(result)
