-- Whoever works may read what it may do, so that it can tell what it lacks.

insert into aetherflow.rights (role, object, privileges) values
    ('engine', 'rights', 'select'),
    ('read', 'rights', 'select');
select aetherflow.apply_rights();
