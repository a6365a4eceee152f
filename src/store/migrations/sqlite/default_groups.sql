insert into rooms (id, kind, name, name_key, position, created_at)
select random() & 9223372036854775807, 'group', column1, column1, column2, unixepoch() * 1000
from (values ('hi', 1), ('python', 2), ('events', 3), ('off-topic', 4));
