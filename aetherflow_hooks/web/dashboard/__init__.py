"""The dashboard: pages made on the server, over the same routes that the API has.

    request → host → session → page → routes of the API, as that token → template

A page asks routes and shows what they give, so it can do nothing that its token could not do by the
API. Without a script every page works; the script keeps numbers fresh and shows attempts as they
are recorded.
"""

from aetherflow_hooks.web.dashboard.site import Site, is_for_people, problem_page

__all__ = ["Site", "is_for_people", "problem_page"]
