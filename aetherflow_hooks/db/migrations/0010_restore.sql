-- Restore: which server this database was last used on, to notice that it is a copy.

alter table aetherflow.control add column system_identifier bigint;
comment on column aetherflow.control.system_identifier is 'Of the server that engines last worked on, as pg_control_system() tells; null: none has, 0: somebody says that this is a copy.';
alter table aetherflow.control add column timeline integer;
comment on column aetherflow.control.timeline is 'Its timeline, which a promotion or a recovery to a moment changes.';
