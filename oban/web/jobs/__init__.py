"""The page `jobs`: search, tabs, selection and bulk actions."""

from oban.web.jobs import bulk, listing, suggest
from oban.web.routing import Page

ROUTES = (Page("/jobs", listing.show), Page("/jobs/suggest", suggest.show), *bulk.ROUTES)
