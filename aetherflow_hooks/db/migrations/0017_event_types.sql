-- Event types: what their data looks like, for customers to read and for emit to be held to.

alter table aetherflow.event_types
    add constraint event_types_type_check check (type ~ '^[A-Za-z0-9_.-]{1,128}$') not valid,
    add column is_built_in boolean not null default false,
    add column schema text,
    add column example text,
    add column deprecated_at timestamptz,
    add column created_at timestamptz not null default now(),
    add column updated_at timestamptz not null default now();
comment on table aetherflow.event_types is
    'The catalogue: types that are announced to customers, AetherFlow''s and those of the application. Others may be emitted too.';
comment on column aetherflow.event_types.is_built_in is
    'One of AetherFlow''s, which customers were promised: only deprecated_at changes. Else the application''s own.';
comment on column aetherflow.event_types.schema is 'The JSON Schema of its data, draft 2020-12, as it was given; null: anything fits.';
comment on column aetherflow.event_types.example is 'Data of such an event, a JSON text that fits the schema, as it was given; null: there is none.';
comment on column aetherflow.event_types.deprecated_at is 'Since when customers are told not to rely on it; null: they may. It is emitted all the same.';
comment on column aetherflow.event_types.created_at is 'When it was registered.';
comment on column aetherflow.event_types.updated_at is 'When it was last changed.';

-- The schemas ask for what makes sense of an event, and let everything else be: more may be added.
insert into aetherflow.event_types (type, description, is_built_in, schema, example) values
('workflow.created', 'A workflow was created.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["workflow"],
  "properties": {
    "workflow": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "status": {"type": "string"},
        "created_at": {"type": "string", "format": "date-time"}
      }
    }
  }
}$json$, $json${
  "workflow": {
    "id": "wf_abc123",
    "name": "Email Processor",
    "status": "created",
    "created_at": "2024-01-15T09:12:40Z"
  }
}$json$),
('workflow.updated', 'A workflow''s configuration changed.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["workflow"],
  "properties": {
    "workflow": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "status": {"type": "string"},
        "updated_at": {"type": "string", "format": "date-time"}
      }
    },
    "changes": {"description": "What is set otherwise now, by its name.", "type": "object"}
  }
}$json$, $json${
  "workflow": {
    "id": "wf_abc123",
    "name": "Email Processor",
    "status": "updated",
    "updated_at": "2024-01-15T09:20:05Z"
  },
  "changes": {
    "name": "Email Processor"
  }
}$json$),
('workflow.deleted', 'A workflow was deleted.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["workflow"],
  "properties": {
    "workflow": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "status": {"type": "string"},
        "deleted_at": {"type": "string", "format": "date-time"}
      }
    }
  }
}$json$, $json${
  "workflow": {
    "id": "wf_abc123",
    "name": "Email Processor",
    "status": "deleted",
    "deleted_at": "2024-01-15T11:02:18Z"
  }
}$json$),
('workflow.executed', 'A workflow started to run.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["workflow"],
  "properties": {
    "workflow": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "status": {"type": "string"},
        "executed_at": {"type": "string", "format": "date-time"}
      }
    },
    "custom_data": {"description": "What the run was given.", "type": "object"}
  }
}$json$, $json${
  "workflow": {
    "id": "wf_abc123",
    "name": "Email Processor",
    "status": "executed",
    "executed_at": "2024-01-15T10:29:57Z"
  },
  "custom_data": {
    "email_subject": "Important Update",
    "priority": "high"
  }
}$json$),
('workflow.completed', 'A workflow ran to its end.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["workflow"],
  "properties": {
    "workflow": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "status": {"type": "string"},
        "execution_time": {"description": "Milliseconds.", "type": "number", "minimum": 0},
        "executed_at": {"type": "string", "format": "date-time"}
      }
    },
    "steps": {
      "type": "array",
      "items": {
        "type": "object",
        "required": ["id"],
        "properties": {
          "id": {"type": "string"},
          "name": {"type": "string"},
          "status": {"type": "string"},
          "duration": {"description": "Milliseconds.", "type": "number", "minimum": 0}
        }
      }
    },
    "custom_data": {"description": "What the run was given.", "type": "object"}
  }
}$json$, $json${
  "workflow": {
    "id": "wf_abc123",
    "name": "Email Processor",
    "status": "completed",
    "execution_time": 2500,
    "executed_at": "2024-01-15T10:29:57Z"
  },
  "steps": [
    {
      "id": "step_1",
      "name": "Process Email",
      "status": "completed",
      "duration": 1200
    },
    {
      "id": "step_2",
      "name": "Send Slack Notification",
      "status": "completed",
      "duration": 1300
    }
  ],
  "custom_data": {
    "email_subject": "Important Update",
    "priority": "high"
  }
}$json$),
('workflow.failed', 'A run of a workflow failed.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["workflow"],
  "properties": {
    "workflow": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "status": {"type": "string"},
        "error_message": {"type": "string"},
        "failed_at": {"type": "string", "format": "date-time"}
      }
    },
    "error_details": {
      "type": "object",
      "properties": {
        "step": {"description": "The id of the step that failed.", "type": "string"},
        "integration": {"type": "string"},
        "error_code": {"type": "string"},
        "retry_count": {"type": "integer", "minimum": 0}
      }
    }
  }
}$json$, $json${
  "workflow": {
    "id": "wf_def456",
    "name": "Data Sync",
    "status": "failed",
    "error_message": "Integration timeout",
    "failed_at": "2024-01-15T10:34:45Z"
  },
  "error_details": {
    "step": "step_3",
    "integration": "salesforce",
    "error_code": "TIMEOUT",
    "retry_count": 3
  }
}$json$),
('integration.connected', 'An integration was connected.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["integration"],
  "properties": {
    "integration": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "status": {"type": "string"},
        "connected_at": {"type": "string", "format": "date-time"}
      }
    }
  }
}$json$, $json${
  "integration": {
    "id": "int_def456",
    "name": "salesforce",
    "status": "connected",
    "connected_at": "2024-01-15T08:00:11Z"
  }
}$json$),
('integration.disconnected', 'The connection of an integration was lost.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["integration"],
  "properties": {
    "integration": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "status": {"type": "string"},
        "disconnected_at": {"type": "string", "format": "date-time"}
      }
    },
    "reason": {"description": "For people.", "type": "string"}
  }
}$json$, $json${
  "integration": {
    "id": "int_def456",
    "name": "salesforce",
    "status": "disconnected",
    "disconnected_at": "2024-01-15T10:31:02Z"
  },
  "reason": "The access token was revoked"
}$json$),
('integration.error', 'An integration reported an error.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["integration"],
  "properties": {
    "integration": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "status": {"type": "string"},
        "error_message": {"type": "string"}
      }
    },
    "error_details": {
      "type": "object",
      "properties": {
        "error_code": {"type": "string"},
        "retry_count": {"type": "integer", "minimum": 0}
      }
    }
  }
}$json$, $json${
  "integration": {
    "id": "int_def456",
    "name": "salesforce",
    "status": "error",
    "error_message": "Too many requests"
  },
  "error_details": {
    "error_code": "RATE_LIMITED",
    "retry_count": 1
  }
}$json$),
('user.invited', 'Somebody was invited to the team.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["user"],
  "properties": {
    "user": {
      "description": "Who was invited; there may be no id before they join.",
      "type": "object",
      "properties": {
        "id": {"type": "string"},
        "email": {"type": "string"},
        "role": {"type": "string"},
        "invited_at": {"type": "string", "format": "date-time"}
      }
    },
    "invited_by": {
      "type": "object",
      "properties": {
        "id": {"type": "string"},
        "email": {"type": "string"}
      }
    }
  }
}$json$, $json${
  "user": {
    "email": "ada@example.com",
    "role": "member",
    "invited_at": "2024-01-15T09:00:00Z"
  },
  "invited_by": {
    "id": "usr_123",
    "email": "grace@example.com"
  }
}$json$),
('user.joined', 'Somebody joined the workspace.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["user"],
  "properties": {
    "user": {
      "type": "object",
      "required": ["id"],
      "properties": {
        "id": {"type": "string"},
        "email": {"type": "string"},
        "name": {"type": "string"},
        "role": {"type": "string"},
        "joined_at": {"type": "string", "format": "date-time"}
      }
    }
  }
}$json$, $json${
  "user": {
    "id": "usr_789",
    "email": "ada@example.com",
    "name": "Ada",
    "role": "member",
    "joined_at": "2024-01-15T09:41:30Z"
  }
}$json$),
('billing.updated', 'Billing information changed.', true, $json${
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["billing"],
  "properties": {
    "billing": {
      "type": "object",
      "properties": {
        "plan": {"type": "string"},
        "seats": {"type": "integer", "minimum": 0},
        "updated_at": {"type": "string", "format": "date-time"}
      }
    }
  }
}$json$, $json${
  "billing": {
    "plan": "team",
    "seats": 12,
    "updated_at": "2024-01-15T12:00:00Z"
  }
}$json$)
on conflict (type) do update
set description = excluded.description, is_built_in = true, schema = excluded.schema, example = excluded.example;

-- An application's role may read no table, and yet has to know what its data should look like.
create function aetherflow.schema_of(type text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp
return (select coalesce(t.schema, '{}') from aetherflow.event_types t where t.type = schema_of.type);
comment on function aetherflow.schema_of(text) is
    'The JSON Schema of a type''s data, {} where it has none; null: the type is not registered.';
revoke execute on function aetherflow.schema_of(text) from public;

create or replace function aetherflow.grant_emit(role_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    overload regprocedure;
begin
    execute format('grant usage on schema aetherflow to %I', role_name);
    for overload in
        select oid::regprocedure from pg_proc
        where proname in ('emit', 'schema_of') and pronamespace = (
            select pronamespace from pg_proc where oid = 'aetherflow.shard_of(text)'::regprocedure)
    loop
        execute format('grant execute on function %s to %I', overload, role_name);
    end loop;
end
$$;
comment on function aetherflow.grant_emit(text) is
    'Let a role emit and ask for the schemas of types, and nothing else.';

-- Who can emit can ask.
do $$
declare
    role_name name;
begin
    for role_name in
        select distinct r.rolname
        from pg_proc p
        cross join lateral aclexplode(p.proacl) acl
        join pg_roles r on r.oid = acl.grantee
        where p.proname = 'emit' and acl.grantee <> p.proowner and p.pronamespace = (
            select pronamespace from pg_proc where oid = 'aetherflow.shard_of(text)'::regprocedure)
    loop
        execute format('grant execute on function aetherflow.schema_of to %I', role_name);
    end loop;
end
$$;
