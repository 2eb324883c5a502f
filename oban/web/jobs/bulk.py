"""Bulk actions on jobs."""

from oban.web.routing import Action, Page

ROUTES: tuple[Page | Action, ...] = ()
