"""The page of one job, and what can be done with a job there."""

from oban.web.job import actions, downloads, edit, page

ROUTES = (*page.ROUTES, *downloads.ROUTES, *actions.ROUTES, *edit.ROUTES)
