"""The settings of the project."""

import os

from tests.django_database import configuration

DATABASES = {"default": configuration(os.environ["DATABASE_URL"])}
INSTALLED_APPS = ["tests.applications.on_django"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.applications.on_django.urls"
WEBHOOK_SECRET = "whsec_" + "c2hvcCBvbiBEamFuZ28sIGl0cyBvd24gc2VjcmV0"
