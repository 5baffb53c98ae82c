"""Examples: data of each of the twelve types of events, as the catalogue of an engine has it."""

from typing import Any

EXAMPLES: dict[str, dict[str, Any]] = {
    "workflow.created": {
        "workflow": {
            "id": "wf_abc123",
            "name": "Email Processor",
            "status": "created",
            "created_at": "2024-01-15T09:12:40Z",
        }
    },
    "workflow.updated": {
        "workflow": {
            "id": "wf_abc123",
            "name": "Email Processor",
            "status": "updated",
            "updated_at": "2024-01-15T09:20:05Z",
        },
        "changes": {"name": "Email Processor"},
    },
    "workflow.deleted": {
        "workflow": {
            "id": "wf_abc123",
            "name": "Email Processor",
            "status": "deleted",
            "deleted_at": "2024-01-15T11:02:18Z",
        }
    },
    "workflow.executed": {
        "workflow": {
            "id": "wf_abc123",
            "name": "Email Processor",
            "status": "executed",
            "executed_at": "2024-01-15T10:29:57Z",
        },
        "custom_data": {"email_subject": "Important Update", "priority": "high"},
    },
    "workflow.completed": {
        "workflow": {
            "id": "wf_abc123",
            "name": "Email Processor",
            "status": "completed",
            "execution_time": 2500,
            "executed_at": "2024-01-15T10:29:57Z",
        },
        "steps": [
            {"id": "step_1", "name": "Process Email", "status": "completed", "duration": 1200},
            {
                "id": "step_2",
                "name": "Send Slack Notification",
                "status": "completed",
                "duration": 1300,
            },
        ],
        "custom_data": {"email_subject": "Important Update", "priority": "high"},
    },
    "workflow.failed": {
        "workflow": {
            "id": "wf_def456",
            "name": "Data Sync",
            "status": "failed",
            "error_message": "Integration timeout",
            "failed_at": "2024-01-15T10:34:45Z",
        },
        "error_details": {
            "step": "step_3",
            "integration": "salesforce",
            "error_code": "TIMEOUT",
            "retry_count": 3,
        },
    },
    "integration.connected": {
        "integration": {
            "id": "int_def456",
            "name": "salesforce",
            "status": "connected",
            "connected_at": "2024-01-15T08:00:11Z",
        }
    },
    "integration.disconnected": {
        "integration": {
            "id": "int_def456",
            "name": "salesforce",
            "status": "disconnected",
            "disconnected_at": "2024-01-15T10:31:02Z",
        },
        "reason": "The access token was revoked",
    },
    "integration.error": {
        "integration": {
            "id": "int_def456",
            "name": "salesforce",
            "status": "error",
            "error_message": "Too many requests",
        },
        "error_details": {"error_code": "RATE_LIMITED", "retry_count": 1},
    },
    "user.invited": {
        "user": {
            "email": "ada@example.com",
            "role": "member",
            "invited_at": "2024-01-15T09:00:00Z",
        },
        "invited_by": {"id": "usr_123", "email": "grace@example.com"},
    },
    "user.joined": {
        "user": {
            "id": "usr_789",
            "email": "ada@example.com",
            "name": "Ada",
            "role": "member",
            "joined_at": "2024-01-15T09:41:30Z",
        }
    },
    "billing.updated": {
        "billing": {"plan": "team", "seats": 12, "updated_at": "2024-01-15T12:00:00Z"}
    },
}
