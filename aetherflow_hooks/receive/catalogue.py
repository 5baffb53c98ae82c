"""Catalogue: the data of AetherFlow's twelve types of events, as types.

What is not required may be missing, and more may be there: a type of events grows. A test holds
this against the JSON Schemas of the catalogue.
"""

from typing import Any, NotRequired, TypedDict


class CreatedWorkflow(TypedDict):
    """`workflow` of `WorkflowCreated`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    created_at: NotRequired[str]


class WorkflowCreated(TypedDict):
    """A workflow was created."""

    workflow: CreatedWorkflow


class UpdatedWorkflow(TypedDict):
    """`workflow` of `WorkflowUpdated`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    updated_at: NotRequired[str]


class WorkflowUpdated(TypedDict):
    """A workflow's configuration changed."""

    workflow: UpdatedWorkflow
    changes: NotRequired[dict[str, Any]]  # what is set otherwise now, by its name


class DeletedWorkflow(TypedDict):
    """`workflow` of `WorkflowDeleted`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    deleted_at: NotRequired[str]


class WorkflowDeleted(TypedDict):
    """A workflow was deleted."""

    workflow: DeletedWorkflow


class ExecutedWorkflow(TypedDict):
    """`workflow` of `WorkflowExecuted`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    executed_at: NotRequired[str]


class WorkflowExecuted(TypedDict):
    """A workflow started to run."""

    workflow: ExecutedWorkflow
    custom_data: NotRequired[dict[str, Any]]  # what the run was given


class CompletedWorkflow(TypedDict):
    """`workflow` of `WorkflowCompleted`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    execution_time: NotRequired[float]  # milliseconds
    executed_at: NotRequired[str]


class Step(TypedDict):
    """One of the `steps` of `WorkflowCompleted`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    duration: NotRequired[float]  # milliseconds


class WorkflowCompleted(TypedDict):
    """A workflow ran to its end."""

    workflow: CompletedWorkflow
    steps: NotRequired[list[Step]]
    custom_data: NotRequired[dict[str, Any]]  # what the run was given


class FailedWorkflow(TypedDict):
    """`workflow` of `WorkflowFailed`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    error_message: NotRequired[str]
    failed_at: NotRequired[str]


class WorkflowFailedDetails(TypedDict):
    """`error_details` of `WorkflowFailed`."""

    step: NotRequired[str]  # the id of the step that failed
    integration: NotRequired[str]
    error_code: NotRequired[str]
    retry_count: NotRequired[int]


class WorkflowFailed(TypedDict):
    """A run of a workflow failed."""

    workflow: FailedWorkflow
    error_details: NotRequired[WorkflowFailedDetails]


class ConnectedIntegration(TypedDict):
    """`integration` of `IntegrationConnected`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    connected_at: NotRequired[str]


class IntegrationConnected(TypedDict):
    """An integration was connected."""

    integration: ConnectedIntegration


class DisconnectedIntegration(TypedDict):
    """`integration` of `IntegrationDisconnected`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    disconnected_at: NotRequired[str]


class IntegrationDisconnected(TypedDict):
    """The connection of an integration was lost."""

    integration: DisconnectedIntegration
    reason: NotRequired[str]  # for people


class FailingIntegration(TypedDict):
    """`integration` of `IntegrationError`."""

    id: str
    name: NotRequired[str]
    status: NotRequired[str]
    error_message: NotRequired[str]


class IntegrationErrorDetails(TypedDict):
    """`error_details` of `IntegrationError`."""

    error_code: NotRequired[str]
    retry_count: NotRequired[int]


class IntegrationError(TypedDict):
    """An integration reported an error."""

    integration: FailingIntegration
    error_details: NotRequired[IntegrationErrorDetails]


class InvitedUser(TypedDict):
    """`user` of `UserInvited`."""

    id: NotRequired[str]
    email: NotRequired[str]
    role: NotRequired[str]
    invited_at: NotRequired[str]


class Inviter(TypedDict):
    """`invited_by` of `UserInvited`."""

    id: NotRequired[str]
    email: NotRequired[str]


class UserInvited(TypedDict):
    """Somebody was invited to the team."""

    user: InvitedUser  # who was invited; there may be no id before they join
    invited_by: NotRequired[Inviter]


class JoinedUser(TypedDict):
    """`user` of `UserJoined`."""

    id: str
    email: NotRequired[str]
    name: NotRequired[str]
    role: NotRequired[str]
    joined_at: NotRequired[str]


class UserJoined(TypedDict):
    """Somebody joined the workspace."""

    user: JoinedUser


class UpdatedBilling(TypedDict):
    """`billing` of `BillingUpdated`."""

    plan: NotRequired[str]
    seats: NotRequired[int]
    updated_at: NotRequired[str]


class BillingUpdated(TypedDict):
    """Billing information changed."""

    billing: UpdatedBilling


# Of each type of the catalogue, the type of its data.
DATA: dict[str, type] = {
    "workflow.created": WorkflowCreated,
    "workflow.updated": WorkflowUpdated,
    "workflow.deleted": WorkflowDeleted,
    "workflow.executed": WorkflowExecuted,
    "workflow.completed": WorkflowCompleted,
    "workflow.failed": WorkflowFailed,
    "integration.connected": IntegrationConnected,
    "integration.disconnected": IntegrationDisconnected,
    "integration.error": IntegrationError,
    "user.invited": UserInvited,
    "user.joined": UserJoined,
    "billing.updated": BillingUpdated,
}
