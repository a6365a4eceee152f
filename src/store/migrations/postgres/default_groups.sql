insert into rooms (id, kind, name, name_key, position, created_at)
select floor(random() * 9007199254740991)::bigint * 1024 + 1, 'group', name, name, position, millis()
from (values ('hi', 1), ('python', 2), ('events', 3), ('off-topic', 4)) as groups (name, position);
